"""What every registered attack promises, and agreement of our own with an independent implementation."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, margin
from medrobust.attacks.pgd import FGSM, PGD
from medrobust.attacks.registry import ATTACKS
from medrobust.attacks.square import Square
from medrobust.errors import UserError

#: Settings that keep the contract tests quick.
QUICK: dict[str, dict[str, Any]] = {
    "cw": {"steps": 10},
    "square": {"queries": 20},
    "library_square": {"queries": 20},
}


def make(name: str, eps: float) -> Attack:
    module, _, kind = ATTACKS[name].partition(":")
    attack: Attack = getattr(import_module(module), kind)(eps=eps, **QUICK.get(name, {}))
    return attack


def seeds(n: int) -> Tensor:
    return torch.arange(n) * 1000 + 7


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (1, 4), (3, 3)])
def test_every_attack_keeps_the_contract(
    name: str, channels: int, classes: int, build: Any, images: Callable[..., Tensor]
) -> None:
    model, clean = build(channels, classes), images(5, channels)
    model[1].eval()  # a frozen BatchNorm in a model that trains
    next(model.parameters()).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    adv = make(name, 0.05)(model, clean, torch.arange(5) % classes, seeds=seeds(5))
    assert torch.equal(torch.get_rng_state(), state), "the global random state was touched"
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (adv - clean).abs().max() <= 0.05 + 1e-6
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert adv.shape == clean.shape


@pytest.mark.parametrize("name", ATTACKS)
def test_a_result_does_not_depend_on_batch_mates(name: str, build: Any, images: Callable[..., Tensor]) -> None:
    model, clean = build(1, 3).eval().double(), images(7).double()
    labels = model(clean).argmax(1)
    attack = make(name, 0.1)
    whole = attack(model, clean, labels, seeds=seeds(7))
    for size in (1, 3):
        parts = [
            attack(model, clean[i : i + size], labels[i : i + size], seeds=seeds(7)[i : i + size])
            for i in range(0, 7, size)
        ]
        assert torch.allclose(torch.cat(parts), whole, atol=1e-6)


@pytest.mark.parametrize("name", ATTACKS)
def test_radius_zero_is_identity(name: str, build: Any, images: Callable[..., Tensor]) -> None:
    clean = images(2)
    assert torch.equal(make(name, 0.0)(build(1, 3), clean, torch.tensor([0, 1]), seeds=seeds(2)), clean)


def test_images_outside_the_range_are_refused(build: Any) -> None:
    with pytest.raises(UserError, match=r"values from -1 to 2.*Attacks take \[0, 1\] images"):
        FGSM(eps=0.1)(build(1, 3), torch.tensor([[[[-1.0, 2.0]]]]), torch.tensor([0]), seeds=seeds(1))


def test_an_attack_that_leaves_its_ball_is_a_defect(build: Any, images: Callable[..., Tensor]) -> None:
    class Rogue(Attack):
        def perturb(
            self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor
        ) -> Tensor:
            return 1 - images

    with pytest.raises(FloatingPointError, match="left the ball"):
        Rogue(eps=0.01)(build(1, 3), images(2), torch.tensor([0, 1]), seeds=seeds(2))


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
    attack = PGD(eps=0.03, alpha=0.01, steps=7, random_start=False, stop_when_fooled=False)
    theirs = torchattacks.PGD(model, eps=0.03, alpha=0.01, steps=7, random_start=False)(clean, labels)
    assert torch.allclose(attack(model, clean, labels, seeds=seeds(6)), theirs, atol=1e-6)


def test_pgd_is_no_weaker_when_it_keeps_what_fooled(build: Any, images: Callable[..., Tensor]) -> None:
    model, clean = build(1, 4).eval(), images(40)
    labels = model(clean).argmax(1)
    keep = PGD(eps=0.05, steps=10)(model, clean, labels, seeds=seeds(40))
    last = PGD(eps=0.05, steps=10, stop_when_fooled=False)(model, clean, labels, seeds=seeds(40))
    assert (model(keep).argmax(1) != labels).sum() >= (model(last).argmax(1) != labels).sum()


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


def test_cw_can_move_pixels_at_the_ends() -> None:
    """Plain torchattacks cannot: arctanh is infinite at exact 0 and 1."""
    import torchattacks

    from medrobust.attacks.library import CW

    linear = nn.Linear(16, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))
        linear.bias.copy_(torch.tensor([0.2, -0.2]))
    model, black, label = nn.Sequential(nn.Flatten(), linear), torch.zeros(1, 1, 4, 4), torch.tensor([0])
    settings = {"c": 10.0, "steps": 50, "lr": 0.05}
    assert torch.equal(torchattacks.CW(model, **settings)(black, label), black)
    ours = CW(eps=1.0, **settings)(model, black, label, seeds=seeds(1))  # type: ignore[arg-type]
    assert model(ours).argmax(1).item() == 1


def test_margin_is_positive_exactly_where_the_answer_is_wrong() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    assert margin(logits, torch.tensor([0, 1])).tolist() == [-1.0, 2.0]
