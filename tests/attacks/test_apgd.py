"""Auto-PGD against torchattacks' port of the reference, from the same start, and its losses for few classes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from medrobust.attacks.base import margin
from medrobust.attacks.methods.apgd import APGD, APGDT
from medrobust.attacks.problem import Problem
from medrobust.attacks.state import AttackState
from medrobust.attacks.targets import attack_loss
from medrobust.core.errors import UserError
from tests.attacks.conftest import AttackedModel

Make = Callable[..., AttackedModel]


def run(attack: APGD, problem: Problem, first: Tensor) -> AttackState:
    """The state of all images after all steps from the first iterates; a fooled image goes on."""
    ended = state = attack.start(problem, 0, first, torch.ones(len(first), dtype=torch.bool))
    while len(state.images):
        ended, state = attack.advance(state)
    return ended


def their_start(problem: Problem, all_images: Tensor) -> Tensor:
    """The start that torchattacks draws for all images after manual_seed(0)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if problem.norm == "Linf":
            draw = 2 * torch.rand(all_images.shape) - 1
            unit = draw / draw.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
        else:
            draw = torch.randn(all_images.shape)
            unit = draw / ((draw**2).sum((1, 2, 3), keepdim=True).sqrt() + 1e-12)
    return (all_images + problem.eps * unit).clamp(0, 1)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.03), ("Linf", 0.08), ("L2", 0.3), ("L2", 0.8)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_the_iterates_are_those_of_the_reference(norm: Any, eps: float, loss: Any, attacked_model: Make) -> None:
    """From the same start, each image reaches the same highest loss, and the same images are fooled."""
    import torchattacks

    model = attacked_model(5, channels=3)
    problem = Problem(model, model.images, model.labels, model.seeds, eps, norm)
    attack = APGD(eps=eps, norm=norm, steps=60, loss=loss, stop_when_fooled=False)
    ended = run(attack, problem, their_start(problem, model.images))
    theirs = torchattacks.APGD(model, norm=norm, eps=eps, steps=60, loss=loss)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, robust, highest, _ = theirs.attack_single_run(model.images, model.labels)
    assert torch.equal(ended.score > 0, ~robust.bool())
    stood = ended.score <= 0
    assert torch.allclose(ended.memory["top_loss"][stood], highest[stood], atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("Linf", 0.08), ("L2", 0.6), ("L2", 0.9)])
def test_towards_every_class_as_strong_as_torchattacks(norm: Any, eps: float, attacked_model: Make) -> None:
    import torchattacks

    model = attacked_model(4)
    ours = APGDT(eps=eps, norm=norm, steps=50)(model, model.images, model.labels, seeds=model.seeds)
    attack = torchattacks.APGDT(model, norm=norm, eps=eps, steps=50, n_classes=4)
    with torch.random.fork_rng():
        theirs = attack(model.images, model.labels)
    fooled = [(model(images).argmax(1) != model.labels).sum() for images in (ours, theirs)]
    assert fooled[0] >= fooled[1]


def test_dlr_is_the_published_loss_where_it_is_defined() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.5, -2.0]])
    label, target = torch.tensor([0]), torch.tensor([2])
    assert attack_loss(logits, label, None, "dlr").item() == pytest.approx(-(3 - 1) / (3 - 0.5))
    assert attack_loss(logits, label, target, "dlr").item() == pytest.approx(-(3 - 0.5) / (3 - (0.5 - 2) / 2))
    assert attack_loss(logits, label, None, "dlr").item() == pytest.approx(
        attack_loss(100 * logits, label, None, "dlr").item()
    ), "it does not depend on the scale of the logits"


@pytest.mark.parametrize(("classes", "targeted"), [(2, False), (2, True), (3, True)])
def test_dlr_is_the_margin_where_it_is_undefined(classes: int, targeted: bool) -> None:
    logits = torch.tensor([[3.0, 1.0, 0.5]])[:, :classes]
    targets = torch.tensor([1]) if targeted else None
    assert attack_loss(logits, torch.tensor([0]), targets, "dlr").item() == pytest.approx(1 - 3)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_every_loss_works_for_every_number_of_classes(classes: int, loss: Any, attacked_model: Make) -> None:
    model = attacked_model(classes)
    for attack in (APGD(eps=0.4, steps=20, loss=loss), APGDT(eps=0.4, steps=20, loss=loss)):
        adv = attack(model, model.images, model.labels, seeds=model.seeds)
        assert (model(adv).argmax(1) != model.labels).all()


def test_wrong_classes_are_tried_most_likely_first(attacked_model: Make) -> None:
    """Start by start, with two restarts per class; after the last wrong class comes the label."""
    model = attacked_model(5)
    problem = Problem(model, model.images, model.labels, model.seeds, 0.1, "Linf")
    attack = APGDT(eps=0.1, restarts=2)
    order = torch.stack([attack.aim(problem, start) for start in range(0, 8, 2)], 1)
    assert (order != model.labels[:, None]).all()
    logits = model(model.images).gather(1, order)
    assert (logits[:, :-1] >= logits[:, 1:]).all()
    assert torch.equal(attack.aim(problem, 3), order[:, 1])
    starts = torch.arange(32) % 8
    assert torch.equal(attack.aim(problem, starts), order[torch.arange(32), starts // 2])
    assert torch.equal(attack.aim(problem, 8), model.labels)
    assert attack.starts == 18
    assert attack.for_classes(5).starts == 8


def test_the_step_size_shrinks_only_where_progress_stalls(attacked_model: Make) -> None:
    """On a linear loss, steps keep their size until the corner; then every checkpoint halves them."""
    layer = torch.nn.Linear(16, 3)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    layer.bias.data = torch.tensor([1e3, 0.0, 0.0])
    linear = torch.nn.Sequential(torch.nn.Flatten(), layer)
    clean, labels = torch.full((1, 1, 4, 4), 0.5), torch.tensor([0])
    problem = Problem(linear, clean, labels, torch.tensor([1]), 0.1, "Linf")
    ended = run(APGD(eps=0.1, loss="margin"), problem, clean)
    assert ended.memory["size"].item() < 0.2 / 8
    assert (ended.memory["top"] - clean).abs().min() == pytest.approx(0.1, abs=1e-6)


def test_rises_without_a_new_best_loss_halve_the_step_size_once() -> None:
    """Condition 2 of algorithm 1: neither step size nor best loss changed since the last checkpoint."""
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    linear[1].bias.data = torch.tensor([1e3, 0.0, 0.0])
    clean = torch.full((3, 1, 4, 4), 0.5)
    problem = Problem(linear, clean, torch.zeros(3, dtype=torch.int64), torch.arange(3), 0.1, "Linf")
    attack = APGD(eps=0.1, loss="margin")
    state = attack.start(problem, 0, clean, torch.ones(3, dtype=torch.bool))
    state.steps = torch.full((3,), 22)  # the first checkpoint
    before, state.memory["top_loss"] = state.memory["size"], torch.zeros(3)
    state.memory["rises"] = torch.full((3,), 20.0)  # the loss rose in most steps: condition 1 does not hold
    state.memory["halved"] = torch.tensor([False, True, False])
    state.memory["top_loss_before"] = torch.tensor([0.0, 0.0, -1.0])  # the third has a new best
    attack._adapt_step_size(state, clean)
    assert (state.memory["size"] / before).flatten().tolist() == [0.5, 1.0, 1.0]
    assert state.memory["halved"].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD(eps=0.1, rho=1.5), "rho: got 1.5"),
        (lambda: APGD(eps=0.1, steps=0), "steps: got 0"),
        (lambda: APGDT(eps=0.1, target=1), "Use apgd or fab for one target"),
        (lambda: APGDT(eps=0.1, targets=0), "targets: got 0"),
    ],
)
def test_an_invalid_setting_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("kind", [APGD, APGDT])
def test_to_the_end_fooled_images_go_on_to_larger_margins(kind: type[APGD], attacked_model: Make) -> None:
    model = attacked_model(4)
    labels = (model.labels + torch.arange(len(model.labels)) % 2) % 4  # half are wrong without an attack
    attack = kind(eps=0.05, steps=20, loss="margin", restarts=2)
    margins = []
    for version in (attack, attack.to_the_end()):
        found = version(model, model.images, labels, seeds=model.seeds)
        with torch.no_grad():
            margins.append(margin(model(found), labels))
    stopped, whole = margins
    with torch.no_grad():
        wrong = margin(model(model.images), labels) > 0
    assert wrong.any()
    assert torch.equal(whole > 0, stopped > 0)
    assert (whole >= stopped - 1e-5).all()
    assert (whole[wrong] > stopped[wrong] + 1).all()
