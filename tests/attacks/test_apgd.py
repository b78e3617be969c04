"""Auto-PGD against torchattacks' port of the reference, from the same start; and its losses for few classes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from medrobust.attacks.goals import objective
from medrobust.attacks.methods import apgd
from medrobust.attacks.methods.apgd import APGD, APGDT, wrong_classes
from medrobust.attacks.problem import Best, Problem
from medrobust.core.errors import UserError
from tests.attacks.conftest import Victim

Make = Callable[..., Victim]


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
def test_the_walk_is_the_reference_s(norm: Any, eps: float, loss: Any, victim: Make) -> None:
    """Same start, same highest loss, image by image; and the same images are fooled."""
    import torchattacks

    model = victim(5, channels=3)
    problem = Problem(model, model.images, model.labels, model.seeds, eps, norm)
    best = Best(model.images)
    run = apgd._Run(problem, their_start(problem, model.images), best.left(), best, loss, 0.75)
    run.go(60)
    theirs = torchattacks.APGD(model, norm=norm, eps=eps, steps=60, loss=loss)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, robust, highest, _ = theirs.attack_single_run(model.images, model.labels)
    assert torch.equal(best.reached, ~robust.bool())
    if len(run.rows):
        assert torch.allclose(run.high, highest[run.rows], atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("Linf", 0.08), ("L2", 0.6), ("L2", 0.9)])
def test_towards_every_class_as_strong_as_torchattacks(norm: Any, eps: float, victim: Make) -> None:
    import torchattacks

    model = victim(4)
    ours = APGDT(eps=eps, norm=norm, steps=50)(model, model.images, model.labels, seeds=model.seeds)
    attack = torchattacks.APGDT(model, norm=norm, eps=eps, steps=50, n_classes=4)
    with torch.random.fork_rng():
        theirs = attack(model.images, model.labels)
    fooled = [(model(images).argmax(1) != model.labels).sum() for images in (ours, theirs)]
    assert fooled[0] >= fooled[1]


def test_dlr_is_the_published_loss_where_it_is_defined() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.5, -2.0]])
    label, aim = torch.tensor([0]), torch.tensor([2])
    assert objective(logits, label, None, "dlr").item() == pytest.approx(-(3 - 1) / (3 - 0.5))
    assert objective(logits, label, aim, "dlr").item() == pytest.approx(-(3 - 0.5) / (3 - (0.5 - 2) / 2))
    assert objective(logits, label, None, "dlr").item() == pytest.approx(
        objective(100 * logits, label, None, "dlr").item()
    ), "blind to the scale of the logits"


@pytest.mark.parametrize(("classes", "aimed"), [(2, False), (2, True), (3, True)])
def test_dlr_is_the_margin_where_it_is_undefined(classes: int, aimed: bool) -> None:
    logits = torch.tensor([[3.0, 1.0, 0.5]])[:, :classes]
    aim = torch.tensor([1]) if aimed else None
    assert objective(logits, torch.tensor([0]), aim, "dlr").item() == pytest.approx(1 - 3)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_for_every_number_of_classes_and_loss(classes: int, loss: Any, victim: Make) -> None:
    model = victim(classes)
    for attack in (APGD(eps=0.4, steps=20, loss=loss), APGDT(eps=0.4, steps=20, loss=loss)):
        found = attack(model, model.images, model.labels, seeds=model.seeds)
        assert (model(found).argmax(1) != model.labels).all()


def test_all_wrong_classes_are_tried_likeliest_first(victim: Make) -> None:
    model = victim(5)
    problem = Problem(model, model.images, model.labels, model.seeds, 0.1, "Linf")
    order = torch.stack(wrong_classes(problem, 9), 1)
    assert order.shape == (32, 4)
    assert (order != model.labels[:, None]).all()
    logits = model(model.images).gather(1, order)
    assert (logits[:, :-1] >= logits[:, 1:]).all()
    assert len(wrong_classes(problem, 2)) == 2


def test_the_step_shrinks_only_where_progress_stalls(victim: Make) -> None:
    """A linear loss is climbed at full steps until the corner, then every checkpoint halves the step."""
    layer = torch.nn.Linear(16, 3)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    layer.bias.data = torch.tensor([1e3, 0.0, 0.0])
    linear = torch.nn.Sequential(torch.nn.Flatten(), layer)
    clean, labels = torch.full((1, 1, 4, 4), 0.5), torch.tensor([0])
    problem = Problem(linear, clean, labels, torch.tensor([1]), 0.1, "Linf")
    best = Best(clean)
    run = apgd._Run(problem, clean, best.left(), best, "margin", 0.75)
    run.go(100)
    assert run.step.item() < 0.2 / 8
    assert (run.high_at - clean).abs().min() == pytest.approx(0.1, abs=1e-6)


def test_rises_without_a_new_best_halve_the_step_once() -> None:
    """Condition 2 of algorithm 1: neither the step nor the best loss changed since the last checkpoint."""
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    linear[1].bias.data = torch.tensor([1e3, 0.0, 0.0])
    clean = torch.full((3, 1, 4, 4), 0.5)
    problem = Problem(linear, clean, torch.zeros(3, dtype=torch.int64), torch.arange(3), 0.1, "Linf")
    best = Best(clean)
    run = apgd._Run(problem, clean, best.left(), best, "margin", 0.75)
    run.rises = torch.full((3,), 10.0)  # every step of the period rose: condition 1 does not hold
    run.halved = torch.tensor([False, True, False])
    run.high_at_check = run.high - torch.tensor([0.0, 0.0, 1.0])  # the third has found a new best
    before = run.step
    run._check(10)
    assert (run.step / before).tolist() == [0.5, 1.0, 1.0]
    assert run.halved.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD(eps=0.1, rho=1.5), "rho: got 1.5"),
        (lambda: APGD(eps=0.1, steps=0), "steps: got 0"),
        (lambda: APGDT(eps=0.1, target=1), "apgd takes a target"),
        (lambda: APGDT(eps=0.1, targets=0), "targets: got 0"),
    ],
)
def test_a_senseless_setting_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
