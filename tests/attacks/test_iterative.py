"""Iterated gradient attacks compared with torchattacks and foolbox from the same start, and their options."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from medrobust.attacks.base import QueryCounter, margin
from medrobust.attacks.methods.apgd import APGD
from medrobust.attacks.methods.iterative import (
    BIM,
    CWPGD,
    MIFGSM,
    PGD,
    PGDL2,
    TIFGSM,
    VMIFGSM,
    IteratedGradient,
    Jitter,
    TargetedBIM,
)
from medrobust.attacks.problem import Problem
from medrobust.attacks.projection import distance
from medrobust.core.errors import UserError
from tests.attacks.conftest import AttackedModel

Make = Callable[..., AttackedModel]
#: So small that no image is fooled: all steps are taken and the last iterates can be compared.
SMALL, STEP = 0.004, 0.001
SAME: dict[str, tuple[Any, Any]] = {
    "BIM": (BIM, {}),
    "MIFGSM": (MIFGSM, {"decay": 1.0}),
    "VMIFGSM": (lambda **known: VMIFGSM(beta=0.0, **known), {"beta": 0.0}),
    "Jitter": (lambda **known: Jitter(random_start=False, std=0.0, **known), {"random_start": False, "std": 0}),
    "TIFGSM": (
        lambda **known: TIFGSM(kernel=7, **known),
        {"decay": 1.0, "len_kernel": 7, "diversity_prob": 0.0},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_images_as_torchattacks(name: str, attacked_model: Make) -> None:
    import torchattacks

    model = attacked_model(4, channels=3)
    ours, theirs = SAME[name]
    attack = ours(eps=SMALL, alpha=STEP, steps=7, keep="last")
    found = attack(model, model.images, model.labels, seeds=model.seeds)
    wanted = getattr(torchattacks, name)(model, eps=SMALL, alpha=STEP, steps=7, **theirs)(
        model.images, model.labels
    )
    assert torch.allclose(found, wanted, atol=1e-6)


def test_the_same_images_as_torchattacks_in_l2_and_towards_a_target(attacked_model: Make) -> None:
    import torchattacks

    model = attacked_model(4, channels=3)
    attack = PGDL2(eps=0.05, alpha=0.02, steps=7, random_start=False, keep="last")
    found = attack(model, model.images, model.labels, seeds=model.seeds)
    theirs = torchattacks.PGDL2(model, eps=0.05, alpha=0.02, steps=7, random_start=False)
    assert torch.allclose(found, theirs(model.images, model.labels), atol=1e-6)
    targeted = torchattacks.BIM(model, eps=SMALL, alpha=STEP, steps=7)
    targeted.set_mode_targeted_least_likely(quiet=True)
    found = TargetedBIM(eps=SMALL, alpha=STEP, steps=7, keep="last")(
        model, model.images, model.labels, seeds=model.seeds
    )
    assert torch.allclose(found, targeted(model.images, model.labels), atol=1e-6)


def test_the_same_images_as_foolbox(attacked_model: Make) -> None:
    foolbox = pytest.importorskip("foolbox")
    model = attacked_model(4)
    their_model = foolbox.PyTorchModel(model, bounds=(0, 1))
    linf = foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=STEP, steps=7, random_start=False)
    _, wanted, _ = linf(their_model, model.images, model.labels, epsilons=SMALL)
    ours = BIM(eps=SMALL, alpha=STEP, steps=7, keep="last")(model, model.images, model.labels, seeds=model.seeds)
    assert torch.allclose(ours, wanted, atol=1e-6)
    l2 = foolbox.attacks.L2ProjectedGradientDescentAttack(abs_stepsize=0.02, steps=7, random_start=False)
    _, wanted, _ = l2(their_model, model.images, model.labels, epsilons=0.05)
    attack = PGDL2(eps=0.05, alpha=0.02, steps=7, random_start=False, keep="last")
    assert torch.allclose(attack(model, model.images, model.labels, seeds=model.seeds), wanted, atol=1e-6)


@pytest.mark.parametrize(("ours", "name"), [(VMIFGSM, "VMIFGSM"), (Jitter, "Jitter"), (CWPGD, "PGD")])
def test_no_weaker_than_torchattacks_where_draws_differ(ours: Any, name: str, attacked_model: Make) -> None:
    """Over five seeds each, because random starts and noise change a single run by a few of the 32 images."""
    import torchattacks

    model = attacked_model(4)
    counts = [0, 0]
    for seed in range(5):
        found = ours(eps=0.1, steps=10)(model, model.images, model.labels, seeds=model.seeds + seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            attack = getattr(torchattacks, name)(model, eps=0.1, alpha=0.025, steps=10)
            wanted = attack(model.images, model.labels)
        for side, images in enumerate((found, wanted)):
            counts[side] += int((model(images).argmax(1) != model.labels).sum())
    assert counts[0] >= counts[1] - 5


def test_the_general_form_contains_pgd(attacked_model: Make) -> None:
    """Same seeds, same random start, same steps."""
    model = attacked_model(4)
    ours = IteratedGradient(eps=SMALL, steps=5)(model, model.images, model.labels, seeds=model.seeds)
    pgd = PGD(eps=SMALL, steps=5)(model, model.images, model.labels, seeds=model.seeds)
    assert torch.allclose(ours, pgd, atol=1e-6)


class Wave(torch.nn.Module):
    """A model that is never fooled. Its margin oscillates with brightness, so that large steps overshoot."""

    def forward(self, images: Tensor) -> Tensor:
        height = 0.5 * (60 * images.flatten(1).mean(1)).sin()
        return torch.stack([torch.ones_like(height), height], 1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_best_iterate_is_returned(norm: Any) -> None:
    clean, labels = torch.linspace(0.3, 0.7, 9).view(-1, 1, 1, 1).expand(9, 1, 4, 4), torch.zeros(9).long()
    margins = {}
    for keep in ("best", "last"):
        eps = 0.2 if norm == "Linf" else 0.8
        attack = IteratedGradient(eps=eps, alpha=eps, steps=6, norm=norm, keep=keep, random_start=False)
        margins[keep] = margin(Wave()(attack(Wave(), clean, labels, seeds=torch.arange(9))), labels)
    assert (margins["best"] >= margins["last"] - 1e-6).all()
    assert (margins["best"] > margins["last"] + 0.01).any()


class Shaky(torch.nn.Module):
    """A model that adds new noise to its input in every pass."""

    def __init__(self, model: AttackedModel) -> None:
        super().__init__()
        self.model, self.draws = model, torch.Generator().manual_seed(0)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images + torch.randn(images.shape, generator=self.draws))
        return logits


def test_the_mean_over_passes_reduces_the_noise_of_the_gradient(attacked_model: Make) -> None:
    """The mean gradient of a random model is similar to that of the model without noise."""
    model = attacked_model(4)
    similarities = []
    for passes in (1, 25):
        problems = [
            Problem(net, model.images, model.labels, model.seeds, 0.1, "Linf") for net in (Shaky(model), model)
        ]
        one, other = (
            problem.gradient(model.images, "margin", count)[2].flatten(1)
            for problem, count in zip(problems, (passes, 1), strict=True)
        )
        similarities.append(torch.cosine_similarity(one, other).mean().item())
    assert similarities[1] > similarities[0] + 0.1


@pytest.mark.parametrize(("kind", "evaluations"), [(IteratedGradient, 8), (VMIFGSM, 8 * 6), (APGD, 8)])
def test_every_pass_of_an_expectation_is_counted(kind: Any, evaluations: int, attacked_model: Make) -> None:
    model = attacked_model(4)
    attack = kind(eps=1e-5, steps=8, eot=3)
    counter = QueryCounter(model, len(model.images))
    attack(counter, model.images, model.labels, seeds=model.seeds)
    assert (counter.gradients == 3 * evaluations).all()
    assert attack.cost == 3 * evaluations


def test_random_starts_fill_the_l2_ball(attacked_model: Make) -> None:
    """Uniform in the volume of a ball with 120 dimensions: nearly all are close to the surface, none outside."""
    model = attacked_model(4)
    grey = torch.full_like(model.images, 0.5)
    problem = Problem(model, grey, model.labels, model.seeds, 0.3, "L2")
    length = distance(problem.noise(0), grey, "L2")
    assert length.max() <= 0.3 * (1 + 1e-5)
    assert length.min() > 0.26
    assert not torch.equal(problem.noise(0), problem.noise(1))


def test_a_vanishing_gradient_gives_finite_images() -> None:
    """torchattacks divides 0 by 0 there."""
    layer = torch.nn.Linear(16, 3)
    torch.nn.init.zeros_(layer.weight)
    flat = torch.nn.Sequential(torch.nn.Flatten(), layer)
    clean, labels = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 0])
    found = MIFGSM(eps=0.1)(flat, clean, labels, seeds=torch.arange(2))
    assert torch.isfinite(found).all()
    found = PGDL2(eps=0.1)(flat, clean, labels, seeds=torch.arange(2))
    assert torch.isfinite(found).all()


def test_vmi_evaluates_only_neighbours_in_the_valid_range(attacked_model: Make) -> None:
    """torchattacks evaluates neighbours outside [0, 1]."""
    import torchattacks

    class Watch(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.low, self.high = attacked_model(3), 0.0, 1.0
            self.images, self.labels = self.inner.images, self.inner.labels

        def forward(self, images: Tensor) -> Tensor:
            self.low = min(self.low, float(images.detach().min()))
            self.high = max(self.high, float(images.detach().max()))
            logits: Tensor = self.inner(images)
            return logits

    ours, theirs = Watch().eval(), Watch().eval()
    VMIFGSM(eps=0.02)(ours, ours.images, ours.labels, seeds=torch.arange(32))
    assert (ours.low, ours.high) == (0.0, 1.0)
    torchattacks.VMIFGSM(theirs, eps=0.02)(theirs.images, theirs.labels)
    assert theirs.low < 0
    assert theirs.high > 1


def test_ti_works_on_grey_images_where_torchattacks_fails(attacked_model: Make) -> None:
    import torchattacks

    model = attacked_model(4)
    with pytest.raises(RuntimeError, match="groups"):
        torchattacks.TIFGSM(model, diversity_prob=0.0)(model.images, model.labels)
    found = TIFGSM(eps=0.2)(model, model.images, model.labels, seeds=model.seeds)
    assert (model(found).argmax(1) != model.labels).float().mean() > 0.5


def test_ti_smooths_each_channel_separately(attacked_model: Make) -> None:
    """A gradient in the first channel alone must not spread to the others."""
    model = attacked_model(4, channels=3)
    problem = Problem(model, model.images, model.labels, model.seeds, 0.1, "Linf")
    gradient = torch.zeros_like(model.images)
    gradient[:, 0, 5, 5] = 1
    attack = TIFGSM(eps=0.1, kernel=5)
    state = attack.start(problem, 0, model.images, torch.zeros_like(model.labels, dtype=torch.bool))
    smooth = attack.steer(state, gradient)
    assert smooth[:, 1:].abs().max() == 0
    assert smooth[:, 0].sum((1, 2)) == pytest.approx(1.0, abs=1e-5)
    assert torch.count_nonzero(smooth[0, 0]) == 25


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IteratedGradient(eps=0.1, steps=0), "steps: got 0"),
        (lambda: IteratedGradient(eps=0.1, restarts=0), "restarts: got 0"),
        (lambda: IteratedGradient(eps=0.1, eot=0), "eot: got 0"),
        (lambda: IteratedGradient(eps=0.1, keep="first"), "keep: got 'first'"),  # type: ignore[arg-type]
        (lambda: IteratedGradient(eps=0.1, loss="hinge"), "loss: got 'hinge'.*'ce', 'margin' or 'dlr'"),  # type: ignore[arg-type]
        (lambda: BIM(eps=0.2, alpha=1e-4, steps=5), "reaches 0.0005 of eps 0.2"),
        (lambda: PGDL2(eps=2.0, alpha=1e-3, steps=5), "reaches 0.005 of eps 2"),
        (lambda: TIFGSM(eps=0.1, kernel=4), "kernel: got 4"),
    ],
)
def test_an_invalid_setting_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
