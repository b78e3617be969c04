"""AutoAttack standard: the published parts, a recorded result, and every number of classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medrobust.attacks.base import margin
from medrobust.attacks.methods.apgd import APGD, APGDT
from medrobust.attacks.methods.autoattack import AutoAttack
from medrobust.attacks.methods.minimal import FABT
from medrobust.attacks.methods.square import Square
from medrobust.attacks.projection import Norm
from medrobust.core.errors import UserError
from tests.attacks.conftest import AttackedModel
from tests.attacks.record_autoattack import RADII, perceptron

Make = Callable[..., AttackedModel]
RECORDED = np.load(Path(__file__).parent / "autoattack.npz")


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [(norm, eps) for norm, radii in RADII.items() for eps in radii])
def test_the_same_images_survive_as_in_the_record(norm: Any, eps: float) -> None:
    """`record_autoattack.py` made the record. Square draws other random numbers, so one image may differ."""
    images = torch.from_numpy(RECORDED["pixels"])[:, None].float() / 255
    labels = torch.from_numpy(RECORDED["labels"])
    model = perceptron(*(torch.from_numpy(RECORDED[f"weight{number}"]) for number in range(4)))
    adv = AutoAttack(eps=eps, norm=norm)(model, images, labels, seeds=torch.arange(len(labels)))
    ours = (model(adv).argmax(1) == labels).numpy()
    recorded = RECORDED[f"{norm}-{eps}"]
    assert 3 < recorded.sum() < 21, "a record that distinguishes strong from weak attacks"
    assert (ours != recorded).sum() <= 1
    assert ours.sum() <= recorded.sum() + 1


def test_the_parts_are_the_published_ones() -> None:
    norms: list[Norm] = ["Linf", "L2"]
    for norm in norms:
        parts: list[Any] = AutoAttack(eps=0.1, norm=norm).parts()
        assert [type(part) for part in parts] == [APGD, APGDT, FABT, Square]
        first, second, third, last = parts
        assert (first.loss, first.steps, first.restarts, first.rho) == ("ce", 100, 1, 0.75)
        assert (second.loss, second.steps, second.restarts, second.targets) == ("dlr", 100, 1, 9)
        assert (third.steps, third.restarts, third.targets) == (100, 1, 9)
        assert (third.alpha_max, third.eta, third.beta) == (0.1, 1.05, 0.9)
        assert (last.queries, last.p_init, last.rescale) == (5000, 0.8, False)
        assert {(part.eps, part.norm) for part in parts} == {(0.1, norm)}


def test_to_the_end_its_parts_go_on(attacked_model: Callable[..., AttackedModel]) -> None:
    model = attacked_model(4)
    attack = AutoAttack(eps=0.08, steps=10, queries=10, targets=1, allow_weak=True)
    margins = []
    for version in (attack, attack.to_the_end()):
        found = version(model, model.images, model.labels, seeds=model.seeds)
        with torch.no_grad():
            margins.append(margin(model(found), model.labels))
    fooled = margins[0] > 0
    assert fooled.any()
    assert torch.equal(margins[1] > 0, fooled)
    assert (margins[1] > margins[0] + 0.01)[fooled].any()


@pytest.mark.parametrize("weak", [{"steps": 10}, {"queries": 100}, {"targets": 3}])
def test_a_smaller_budget_is_refused(weak: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"is not AutoAttack.*100, 5000 and 9, or set allow_weak: true"):
        AutoAttack(eps=0.1, **weak)  # type: ignore[arg-type]
    assert AutoAttack(eps=0.1, allow_weak=True, **weak).allow_weak  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.12), ("L2", 1.1)])
def test_it_fools_every_image_that_one_of_its_parts_fools(
    classes: int, norm: Any, eps: float, attacked_model: Make
) -> None:
    model = attacked_model(classes, n=16)
    eps *= 2 if classes == 2 else 1  # two classes are further apart
    attack = AutoAttack(eps=eps, norm=norm, steps=15, queries=40, allow_weak=True)

    def fooled(one: Any) -> torch.Tensor:
        adv = one(model, model.images, model.labels, seeds=model.seeds)
        return torch.ne(model(adv).argmax(1), model.labels)

    together = fooled(attack)
    alone = torch.stack([fooled(part) for part in attack.parts()]).any(0)
    assert (alone & ~together).sum() <= 1
    assert together.any()


@pytest.mark.parametrize("classes", [2, 3])
def test_torchattacks_fails_for_few_classes(classes: int, attacked_model: Make) -> None:
    """Its targeted DLR loss needs four logits, which is why the parts here are our own."""
    import torchattacks

    model = attacked_model(classes)
    attack = torchattacks.AutoAttack(model, eps=1e-3, n_classes=classes, seed=0)
    with pytest.raises(IndexError), torch.random.fork_rng():
        attack(model.images, model.labels)
    for parameter in model.parameters():
        parameter.grad = None


def test_torchattacks_runs_a_tenth_of_the_steps() -> None:
    import torchattacks

    theirs = torchattacks.AutoAttack(torch.nn.Linear(1, 4), n_classes=4)
    steps = [attack.steps for attack in theirs._autoattack.attacks[:3]]
    assert steps == [10, 10, 10]
