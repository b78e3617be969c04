"""Attacks that look for the smallest change: DeepFool, FAB and CW against independent implementations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medrobust.attacks.methods.cw import CW
from medrobust.attacks.methods.minimal import FAB, FABT, DeepFool, nearest, to_plane
from medrobust.attacks.problem import Problem
from medrobust.attacks.projection import distance
from medrobust.core.errors import UserError
from tests.attacks.conftest import AttackedModel

Make = Callable[..., AttackedModel]
FAR = {"Linf": 1.0, "L2": 100.0}


def lengths(attack: Any, model: AttackedModel, norm: Any) -> np.ndarray:
    """Distance of each adversarial image; infinite where the model is not fooled."""
    adv = attack(model, model.images, model.labels, seeds=model.seeds)
    away = distance(adv, model.images, norm)
    fooled = model(adv).argmax(1) != model.labels
    return torch.where(fooled, away, torch.inf).detach().numpy()


def stepped(point: np.ndarray, slope: np.ndarray, offset: float, norm: Any) -> np.ndarray:
    step: np.ndarray = to_plane(
        torch.tensor(point)[None], torch.tensor(slope)[None], torch.tensor([offset], dtype=torch.float64), norm
    )[0].numpy()
    return step


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_the_step_to_a_plane_is_the_smallest_in_linf(seed: int, dims: int) -> None:
    """Compared with scipy's linear programme: minimal t with |d| <= t, x + d in [0, 1], slope (x + d) = offset."""
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    point, slope, offset = np.clip(rng.uniform(-0.2, 1.2, dims), 0, 1), rng.normal(size=dims), rng.normal()
    step = stepped(point, slope, offset, "Linf")
    assert ((point + step >= -1e-9) & (point + step <= 1 + 1e-9)).all()
    eye, one = np.eye(dims), -np.ones((dims, 1))
    best = linprog(
        np.r_[np.zeros(dims), 1], A_ub=np.block([[eye, one], [-eye, one]]), b_ub=np.zeros(2 * dims),
        A_eq=[np.r_[slope, 0]], b_eq=[offset - slope @ point],
        bounds=[(-v, 1 - v) for v in point] + [(0, None)],
    )  # fmt: skip
    if best.status == 0:
        assert np.abs(step).max() == pytest.approx(best.fun, abs=1e-7)
        assert slope @ (point + step) == pytest.approx(offset, abs=1e-7)
    else:  # out of reach: the nearest corner
        need = np.sign(offset - slope @ point)
        assert point + step == pytest.approx(np.where(slope * need > 0, 1.0, 0.0))


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_the_step_to_a_plane_is_the_smallest_in_l2(seed: int, dims: int) -> None:
    """Compared with a general solver."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    point, slope = np.clip(rng.uniform(-0.2, 1.2, dims), 0, 1), rng.normal(size=dims)
    inside = rng.uniform(size=dims)
    offset = float(slope @ inside)  # a plane that meets the box
    step = stepped(point, slope, offset, "L2")
    best = minimize(
        lambda d: d @ d, inside - point, jac=lambda d: 2 * d, method="SLSQP",
        bounds=[(-v, 1 - v) for v in point], options={"ftol": 1e-12, "maxiter": 300},
        constraints={"type": "eq", "fun": lambda d: slope @ (point + d) - offset, "jac": lambda d: slope},
    )  # fmt: skip
    assert slope @ (point + step) == pytest.approx(offset, abs=1e-6)
    assert np.linalg.norm(step) <= np.linalg.norm(best.x) + 1e-4


def test_the_nearest_boundary_depends_on_the_norm() -> None:
    """Four pixels with slope 1 (L1 4, L2 2) or one with slope 3: the dual norm decides."""
    slopes = torch.zeros(1, 2, 1, 2, 2)
    slopes[0, 0], slopes[0, 1, 0, 0, 0] = 1.0, 3.0
    gaps = torch.tensor([[-1.0, -1.1]])
    assert [nearest(gaps, slopes, norm)[0].item() for norm in ("Linf", "L2")] == pytest.approx([-1.0, -1.1])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("alpha_max", "share"), [(0.1, 0.1), (1.0, 1 / 3)])
def test_a_step_of_fab_is_the_mixture_of_the_paper(norm: Any, alpha_max: float, share: float) -> None:
    """On a linear model a projection with overshoot eta turns a gap g into (1 - eta)·g (equations 7 to 9)."""
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    slope = torch.linspace(0.5, 1.5, 16)
    linear[1].weight.data = torch.stack([torch.zeros(16), slope])
    linear[1].bias.data = torch.tensor([0.0, -0.5 * slope.sum() - 2.0])
    image = torch.full((1, 1, 4, 4), 0.5)  # gap -2
    current = image + 1 / slope.sum()  # gap -1: half as far
    problem = Problem(linear.eval(), image, torch.tensor([0]), torch.tensor([1]), 1.0, norm)
    logits = linear(FAB(eps=1.0, norm=norm, alpha_max=alpha_max, eta=1.05)._step(problem, current))
    # The two distances have the ratio of the gaps, 1 to 2, so the unbounded share is 1 / 3.
    assert (logits[0, 1] - logits[0, 0]).item() == pytest.approx(0.05 * (1 - share + 2 * share), abs=1e-5)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_fab_finds_no_larger_changes_than_torchattacks(norm: Any, targeted: bool, attacked_model: Make) -> None:
    import torchattacks

    model = attacked_model(4)
    attack = (FABT if targeted else FAB)(eps=FAR[norm], norm=norm, steps=30)
    ours = lengths(attack, model, norm)
    theirs = torchattacks.FAB(
        model, norm=norm, eps=FAR[norm], steps=30, n_classes=4, multi_targeted=targeted, seed=0
    )
    with torch.random.fork_rng():
        wanted = theirs(model.images, model.labels)
    away = distance(wanted, model.images, norm)
    reached = torch.where(model(wanted).argmax(1) != model.labels, away, torch.inf).detach().numpy()
    for param in model.parameters():
        param.grad = None
    assert (ours <= reached * 1.02 + 1e-4).mean() > 0.95
    assert np.median(ours) <= np.median(reached) * 1.005


def test_deepfool_finds_the_same_distances_as_torchattacks(attacked_model: Make) -> None:
    import torchattacks

    model = attacked_model(4)
    ours = lengths(DeepFool(eps=100.0, norm="L2"), model, "L2")
    wanted = torchattacks.DeepFool(model)(model.images, model.labels)
    for param in model.parameters():
        param.grad = None
    away = distance(wanted, model.images, "L2").detach().numpy()
    assert np.isfinite(ours).all()
    assert ours == pytest.approx(away, rel=1e-3)


def test_deepfool_is_exact_for_a_linear_model() -> None:
    """One step to slightly beyond the nearer of two planes."""
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    linear[1].weight.data = torch.tensor([[0.0] * 4, [1.0, 1, 0, 0], [0, 0, 4.0, 3.0]])
    linear[1].bias.data = torch.tensor([2.0, 0.0, -1.0])
    clean, labels = torch.full((1, 1, 2, 2), 0.3), torch.tensor([0])
    found = DeepFool(eps=9.0, norm="L2")(linear, clean, labels, seeds=torch.tensor([0]))
    gap = 2.0 - (0.3 * 7 - 1)  # to the third class, at slope 5
    assert distance(found, clean, "L2").item() == pytest.approx(1.02 * gap / 5, rel=1e-3)
    found = DeepFool(eps=1.0)(linear, clean, labels, seeds=torch.tensor([0]))
    assert distance(found, clean).item() == pytest.approx(1.02 * gap / 7, rel=1e-3)


def test_cw_finds_no_larger_changes_than_foolbox(attacked_model: Make) -> None:
    foolbox = pytest.importorskip("foolbox")
    model = attacked_model(4)
    ours = lengths(CW(eps=100.0, norm="L2", steps=60, searches=6, lr=0.03), model, "L2")
    theirs = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=6, steps=60, stepsize=0.03, initial_const=1e-2
    )
    _, wanted, fooled = theirs(
        foolbox.PyTorchModel(model, bounds=(0, 1)), model.images, model.labels, epsilons=None
    )
    assert fooled.all()
    away = distance(wanted, model.images, "L2").detach().numpy()
    assert np.isfinite(ours).all()
    assert np.mean(ours) <= np.mean(away) * 1.01


def test_the_search_over_c_finds_smaller_changes(attacked_model: Make) -> None:
    """torchattacks has no search over c."""
    model = attacked_model(4)
    one = lengths(CW(eps=100.0, norm="L2", steps=60, searches=1, c=10.0, lr=0.03), model, "L2")
    six = lengths(CW(eps=100.0, norm="L2", steps=60, searches=6, c=10.0, lr=0.03), model, "L2")
    assert (six <= one).all()
    assert np.mean(six) < 0.99 * np.mean(one)


def test_cw_moves_pixels_at_the_ends_and_reaches_its_confidence() -> None:
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    linear[1].weight.data = torch.stack([-torch.ones(16), torch.ones(16)])
    linear[1].bias.data = torch.tensor([0.2, -0.2])
    black, label = torch.zeros(1, 1, 4, 4), torch.tensor([0])
    for kappa in (0.0, 2.0):
        attack = CW(eps=9.0, norm="L2", steps=200, lr=0.1, kappa=kappa)
        logits = linear(attack(linear, black, label, seeds=torch.tensor([0])))
        assert logits[0, 1] - logits[0, 0] >= kappa


def test_a_small_change_counts_in_a_ball_of_another_norm(attacked_model: Make) -> None:
    """CW counts in the suite's norm, here Linf. Outside the ball, the clean image is returned."""
    model = attacked_model(4)
    found = CW(eps=0.2, steps=60, searches=4, lr=0.03)(model, model.images, model.labels, seeds=model.seeds)
    away = distance(found, model.images)
    assert away.max() <= 0.2 * (1 + 1e-5)
    fooled = model(found).argmax(1) != model.labels
    assert torch.equal(away > 0, fooled)
    assert fooled.any()


@pytest.mark.parametrize("restarts", [1, 3])
def test_fab_stops_inside_the_ball_without_minimise(restarts: int, attacked_model: Make) -> None:
    model = attacked_model(4)
    far = FAB(eps=0.15, steps=20, restarts=restarts, minimise=False)
    near = FAB(eps=0.15, steps=20, restarts=restarts)
    nearest, first = lengths(near, model, "Linf"), lengths(far, model, "Linf")
    assert (nearest <= first).all()
    assert np.median(nearest) < np.median(first) <= 0.15


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeepFool(eps=0.1, steps=0), "steps: got 0"),
        (lambda: FAB(eps=0.1, restarts=0), "restarts: got 0"),
        (lambda: FABT(eps=0.1, target=1), "Use apgd or fab for one target"),
        (lambda: CW(eps=0.1, c=0.0), "c: got 0.0"),
        (lambda: CW(eps=0.1, searches=0), "searches: got 0"),
    ],
)
def test_an_invalid_setting_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
