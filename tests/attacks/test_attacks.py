"""FGSM, PGD and Square, and inputs and results that the base class refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, margin
from medrobust.attacks.methods.iterative import FGSM, PGD
from medrobust.attacks.methods.square import Square
from medrobust.attacks.problem import Problem
from medrobust.core.errors import UserError


def seeds(n: int) -> Tensor:
    return torch.arange(n) * 1000 + 7


def test_images_outside_the_range_are_refused(build: Any) -> None:
    with pytest.raises(UserError, match=r"values from -1 to 2.*Use images in \[0, 1\]"):
        FGSM(eps=0.1)(build(1, 3), torch.tensor([[[[-1.0, 2.0]]]]), torch.tensor([0]), seeds=seeds(1))


def test_an_attack_that_leaves_its_ball_raises(build: Any, images: Callable[..., Tensor]) -> None:
    class Rogue(Attack):
        def perturb(
            self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor
        ) -> Tensor:
            return 1 - images

    with pytest.raises(FloatingPointError, match="left the ball"):
        Rogue(eps=0.01)(build(1, 3), images(2), torch.tensor([0, 1]), seeds=seeds(2))


def test_leaving_the_ball_by_more_than_rounding_raises(build: Any) -> None:
    class Sloppy(Attack):
        def perturb(
            self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor
        ) -> Tensor:
            return images + 1.001 * self.eps

    with pytest.raises(FloatingPointError, match="left the ball"):
        Sloppy(eps=0.1)(build(1, 3), torch.full((1, 1, 12, 10), 0.5), torch.tensor([0]), seeds=seeds(1))


def test_random_starts_differ_between_restarts_and_seeds(build: Any, images: Callable[..., Tensor]) -> None:
    clean, labels, attack = images(3), torch.tensor([0, 1, 2]), PGD(eps=0.1)
    shifts = []
    for restart in (0, 1):
        problem = Problem(build(1, 3), clean, labels, torch.tensor([5, 5, 6]), 0.1, "Linf")
        state = attack.start(problem, restart, clean, torch.zeros(3, dtype=torch.bool))
        shifts.append((state.current - clean)[:, :, 4:8, 4:8])
    for one, other in ((shifts[0], shifts[1]), (shifts[0][1], shifts[0][2])):
        assert (one - other).abs().mean() > 0.01
    shift = [state.current[row] - clean[row] for row in (0, 1)]  # these two have the same seed
    inside = ((clean[0] - 0.5).abs() < 0.4) & ((clean[1] - 0.5).abs() < 0.4)
    assert torch.allclose(shift[0][inside], shift[1][inside], atol=1e-6)


def test_a_configuration_that_cannot_reach_its_radius_is_refused() -> None:
    with pytest.raises(UserError, match=r"alpha 0.0001 x 5 steps reaches 0.0005 of eps 0.2"):
        PGD(eps=0.2, alpha=1e-4, steps=5)
    assert PGD(eps=0.2, alpha=1e-4, steps=5, allow_weak=True).step_size == 1e-4
    assert PGD(eps=0.2, steps=5).step_size == pytest.approx(0.1)


def test_fgsm_and_pgd_agree_with_torchattacks(build: Any, images: Callable[..., Tensor]) -> None:
    import torchattacks

    model, clean = build(3, 4).eval(), images(6, 3)
    labels = model(clean).argmax(1)
    ours = FGSM(eps=0.03)(model, clean, labels, seeds=seeds(6))
    assert torch.allclose(ours, torchattacks.FGSM(model, eps=0.03)(clean, labels), atol=1e-6)
    attack = PGD(eps=0.03, alpha=0.01, steps=7, random_start=False, keep="last", stop_when_fooled=False)
    theirs = torchattacks.PGD(model, eps=0.03, alpha=0.01, steps=7, random_start=False)(clean, labels)
    assert torch.allclose(attack(model, clean, labels, seeds=seeds(6)), theirs, atol=1e-6)


def test_pgd_is_no_weaker_when_it_stops_at_success(build: Any, images: Callable[..., Tensor]) -> None:
    model, clean = build(1, 4).eval(), images(40)
    labels = model(clean).argmax(1)
    first = PGD(eps=0.05, steps=10)(model, clean, labels, seeds=seeds(40))
    last = PGD(eps=0.05, steps=10, stop_when_fooled=False)(model, clean, labels, seeds=seeds(40))
    assert (model(first).argmax(1) != labels).sum() >= (model(last).argmax(1) != labels).sum()


def test_more_restarts_fool_no_fewer(build: Any, images: Callable[..., Tensor]) -> None:
    model, clean = build(1, 4).eval(), images(40)
    labels = model(clean).argmax(1)
    fooled = [
        (
            model(PGD(eps=0.02, steps=3, restarts=r)(model, clean, labels, seeds=seeds(40))).argmax(1) != labels
        ).sum()
        for r in (1, 5)
    ]
    assert fooled[1] >= fooled[0]


def test_square_gets_stronger_with_queries(trained: nn.Module, subset: Any) -> None:
    images, labels = subset.batch(range(40)), subset.targets(range(40))
    margins = [
        margin(trained(Square(eps=0.1, queries=q)(trained, images, labels, seeds=seeds(40))), labels).mean().item()
        for q in (1, 200)
    ]
    assert margins[1] > margins[0]


def test_square_stays_at_the_border_and_changes_one_square_of_its_best_image(
    build: Any, images: Callable[..., Tensor]
) -> None:
    """Every pixel moves by -eps or eps; a proposal differs from the best image in a single square."""
    attack, grey = Square(eps=0.1, queries=40), torch.full((4, 1, 12, 10), 0.5)
    model, labels = build(1, 3).eval(), torch.tensor([0, 1, 2, 0])
    adv = Square(eps=0.1, queries=40, stop_when_fooled=False)(model, grey, labels, seeds=seeds(4))
    assert torch.allclose((adv - grey).abs(), torch.tensor(0.1))
    problem = Problem(model, grey, labels, seeds(4), 0.1, "Linf")
    state = attack.start(problem, 0, grey, torch.zeros(4, dtype=torch.bool))
    state.best, state.current, state.steps = state.current, grey, torch.full_like(labels, 5)
    changed = (attack.step(state, ()) != state.best).any(1)
    assert changed.any()
    side = attack._side(torch.tensor([6]), 12, 10).item()
    assert side < 10
    for pixels in changed:
        rows, columns = torch.nonzero(pixels).T if pixels.any() else (torch.zeros(1), torch.zeros(1))
        assert max(rows.max() - rows.min(), columns.max() - columns.min()) < side


def test_margin_is_positive_exactly_where_the_prediction_is_wrong() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    assert margin(logits, torch.tensor([0, 1])).tolist() == [-1.0, 2.0]
