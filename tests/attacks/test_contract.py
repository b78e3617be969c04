"""The contract of every registered attack, for several numbers of classes and channels and in every norm."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack
from medrobust.attacks.lookup import load_attack
from medrobust.attacks.projection import distance
from medrobust.attacks.registry import ATTACKS
from medrobust.core.errors import UserError
from medrobust.data.store import Subset
from tests.attacks.conftest import AttackedModel
from tests.hyperparameters import refusable

Make = Callable[..., Attack]


#: Every attack in every norm that it supports.
CASES = [(name, norm) for name in ATTACKS for norm in load_attack(name).norms]


#: A radius by norm at which some images are fooled, and one that fools them all.
RADII = {"Linf": 0.08, "L2": 0.9, "patch": 0.08}
WHOLE = {"Linf": 1.0, "L2": 12.0, "patch": 0.84}


def seeds(n: int) -> Tensor:
    return torch.arange(n) * 1000 + 7


def train_images(channels: int) -> Subset:
    """Twenty images of the size of the fixture `images`."""
    shape = (20, 12, 10) if channels == 1 else (20, 12, 10, channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    ids = np.array([f"t{number}" for number in range(20)])
    return Subset(pixels, np.arange(20), np.zeros(20, dtype=np.int64), ids, ids, ["a", "b"])


@pytest.mark.parametrize(("name", "norm"), CASES)
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 3), (1, 4), (3, 10)])
def test_every_attack_keeps_the_contract(
    name: str, norm: str, channels: int, classes: int, build: Any, images: Callable[..., Tensor], make_attack: Make
) -> None:
    model, clean = build(channels, classes), images(3, channels)
    attack = make_attack(name, 0.05, build(channels, classes).eval(), train_images(channels), norm=norm)
    model[1].eval()  # a frozen BatchNorm in a model that trains
    next(model.parameters()).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    torch.manual_seed(5)
    np.random.seed(5)
    state, other_state = torch.get_rng_state(), np.random.get_state()[1]  # type: ignore[index]
    adv = attack(model, clean, torch.arange(3) % classes, seeds=seeds(3))
    assert torch.equal(torch.get_rng_state(), state), "the global random state was touched"
    assert np.array_equal(np.random.get_state()[1], other_state)  # type: ignore[index]
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert distance(adv, clean, attack.norm).max() <= 0.05 * (1 + 1e-5) + 1e-7
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert adv.shape == clean.shape
    assert adv.dtype == clean.dtype


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_to_the_end_no_attack_stops_at_a_success(name: str, norm: str, build: Any, make_attack: Make) -> None:
    attack = make_attack(name, 0.05, build(1, 3).eval(), train_images(1), norm=norm)
    whole = attack.to_the_end()
    assert type(whole) is type(attack)
    assert not getattr(whole, "stop_when_fooled", False)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_a_result_does_not_depend_on_batch_mates(
    name: str, norm: str, attacked_model: Callable[..., AttackedModel], make_attack: Make
) -> None:
    """In batches of 1, 7 and 64, with images of which some are fooled."""
    model = attacked_model(4, n=64)
    twice = nn.Sequential(*model).double().eval()
    images = model.images.double()
    try:
        attack = make_attack(name, RADII[norm], twice, train_images(1), norm=norm)
        whole = attack(twice, images, model.labels, seeds=model.seeds)
        for size, upto in ((7, 64), (1, 9)):
            parts = [
                attack(twice, images[i : i + size], model.labels[i : i + size], seeds=model.seeds[i : i + size])
                for i in range(0, upto, size)
            ]
            assert torch.allclose(torch.cat(parts), whole[: len(torch.cat(parts))], atol=1e-5)
    finally:
        twice.float()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_every_attack_runs_on_a_gpu(
    name: str, norm: str, attacked_model: Callable[..., AttackedModel], make_attack: Make
) -> None:
    model = nn.Sequential(*attacked_model(4)).eval().cuda()
    known = attacked_model(4)
    images, labels, seeds = (part.cuda() for part in (known.images, known.labels, known.seeds))
    try:
        attack = make_attack(name, RADII[norm], model, train_images(1), norm=norm)
        adv = attack(model, images, labels, seeds=seeds)
        assert adv.is_cuda
        assert distance(adv, images, attack.norm).max() <= attack.eps * (1 + 1e-5) + 1e-6
    finally:
        model.cpu()


@pytest.mark.parametrize("name", ATTACKS)
def test_values_that_the_annotations_do_not_allow_are_refused(name: str) -> None:
    """The message names the hyper-parameter."""
    kind = load_attack(name)
    for key, value in refusable(kind):
        with pytest.raises(UserError, match=rf"^attack\.{key}: got "):
            kind(**{"eps": 0.1, key: value})


@pytest.mark.parametrize("name", ATTACKS)
def test_radius_zero_is_identity(name: str, build: Any, images: Callable[..., Tensor], make_attack: Make) -> None:
    clean, model = images(2), build(1, 3)
    attack = make_attack(name, 0.0, model)
    assert torch.equal(attack(model, clean, torch.tensor([0, 1]), seeds=seeds(2)), clean)


#: Controls and attacks whose search space or budget is too small; and those that need more than `QUICK`.
NO_SURE_SUCCESS = {"fgsm", "noise", "one_pixel", "universal"}
STRONGER: dict[str, dict[str, Any]] = {
    "cw": {"steps": 100, "searches": 5, "lr": 0.2}, "fab": {"steps": 30},
    "fab_t": {"steps": 30}, "deepfool": {"steps": 30}, "jitter": {"steps": 40, "restarts": 5},
    "square": {"queries": 300}, "rays": {"queries": 300}, "fmn": {"steps": 30},
}  # fmt: skip


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if case[0] not in NO_SURE_SUCCESS])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_radius_beyond_the_range_fools_everything(
    name: str, norm: str, classes: int, attacked_model: Callable[..., AttackedModel], make_attack: Make
) -> None:
    model = attacked_model(classes)
    settings = STRONGER.get(name, {})
    attack = make_attack(name, WHOLE[norm], model, norm=norm, **settings)
    adv = attack(model, model.images, model.labels, seeds=model.seeds)
    assert not (model(adv).argmax(1) == model.labels).any()
