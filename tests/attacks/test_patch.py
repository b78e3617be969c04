"""Patches: any content inside one square of a given share, at the best position."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from medrobust.attacks.engine.attempts import stored_accuracy, worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.methods.iterative import PGD
from medrobust.attacks.methods.patch import Patch
from medrobust.attacks.projection import distance
from medrobust.attacks.regions import foreground
from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.data.store import Subset
from tests.attacks.conftest import AttackedModel

Make = Callable[..., AttackedModel]


def square_of(side: int, top: int, left: int, height: int = 12, width: int = 10) -> Tensor:
    """Bool 1×1×H×W."""
    window = torch.zeros(1, 1, height, width, dtype=torch.bool)
    window[..., top : top + side, left : left + side] = True
    return window


@pytest.mark.parametrize(
    ("pixels", "wanted"),
    [
        ([], 0),
        ([(0, 0)], 1),
        ([(11, 9)], 1),
        ([(3, 2), (3, 6)], 25),
        ([(1, 5), (7, 4), (2, 8)], 49),
        ([(0, 0), (11, 0)], 144),  # no square of the image holds both
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_distance_is_the_share_of_the_smallest_square(
    pixels: list[tuple[int, int]], wanted: int, channels: int
) -> None:
    clean = torch.rand(1, channels, 12, 10, generator=torch.Generator().manual_seed(0))
    changed = clean.clone()
    for row, column in pixels:
        changed[0, -1, row, column] += 0.1
    assert distance(changed, clean, "patch").item() == pytest.approx(wanted / 120)


@pytest.mark.parametrize("share", [1 / 120, 0.04, 0.09, 0.31, 0.84, 1.0])
def test_the_change_stays_inside_one_square_of_the_share(share: float, attacked_model: Make) -> None:
    model = attacked_model(4)
    attack = Patch(eps=share, steps=4, stop_when_fooled=False, keep="last", random_start=True)
    found = attack(model, model.images, model.labels, seeds=model.seeds)
    side = int(np.sqrt(share * 120 + 1e-6))
    away = (distance(found, model.images, "patch") * 120).sqrt()
    assert away.max().item() == pytest.approx(side)
    assert found.min() >= 0
    assert found.max() <= 1


def linear(generator: torch.Generator, beyond: float, side: int, allowed: Tensor) -> tuple[nn.Module, Tensor]:
    """Two classes on 12×10 pixels: the best patch inside `allowed` exceeds the boundary by the share `beyond`."""
    slope = torch.randn(12, 10, generator=generator)
    clean = torch.rand(1, 1, 12, 10, generator=generator)
    gain = torch.where(slope > 0, slope * (1 - clean[0, 0]), -slope * clean[0, 0])
    best = max(
        gain[top : top + side, left : left + side].sum().item()
        for top in range(13 - side)
        for left in range(11 - side)
        if allowed[0, 0, top : top + side, left : left + side].all()
    )
    layer = nn.Linear(120, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(120), slope.flatten()]))
        layer.bias.copy_(torch.tensor([(slope * clean).sum().item() + best * (1 - beyond), 0.0]))
    return nn.Sequential(nn.Flatten(), layer).eval(), clean


@pytest.mark.parametrize("side", [1, 3, 7])
@pytest.mark.parametrize("region", [False, True])
def test_the_best_position_and_content_are_found_for_a_linear_model(side: int, region: bool) -> None:
    """The exact optimum, by all positions: it is reached, and nothing beyond it."""
    allowed = square_of(8, 3, 1) if region else torch.ones(1, 1, 12, 10, dtype=torch.bool)
    label = torch.tensor([0])
    for number in range(4):
        for beyond, fooled in ((0.01, True), (-0.01, False)):
            model, clean = linear(torch.Generator().manual_seed(number), beyond, side, allowed)
            attack = Patch(eps=side**2 / 120, restarts=1, mask=allowed if region else None)
            found = attack(model, clean, label, seeds=label)
            assert (model(found).argmax(1).item() == 1) == fooled
            assert torch.equal(found[~allowed], clean[~allowed])


def test_beside_the_anatomy_the_anatomy_stays() -> None:
    """A bright disc: patches that fit beside it lie there; one that does not fit leaves the disc as it is."""
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(20), indexing="ij")
    disc = (rows - 12) ** 2 + (columns - 12) ** 2 < 36
    clean = torch.where(disc, 0.8, 0.1)[None, None].repeat(3, 1, 1, 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(480, 3)).eval()
    inside, seeds = foreground(clean), torch.arange(3)
    assert torch.equal(inside[0, 0], disc)
    for share in (25 / 480, 0.5):
        attack = Patch(eps=share, mask="background", steps=3, stop_when_fooled=False, keep="last")
        labels = model(clean).argmax(1)
        found = attack(model, clean, labels, seeds=seeds)
        moved = (found != clean).any(1, keepdim=True)
        assert not (moved & inside).any()
        assert moved.flatten(1).any(1).all()
        assert (distance(found, clean, "patch") <= share).all()


def test_later_starts_are_elsewhere(attacked_model: Make) -> None:
    """The first position is that of the gradient; the next ones are drawn per image."""
    model = attacked_model(2)
    attack = Patch(eps=9 / 120, steps=2, stop_when_fooled=False)
    problem = attack.problem(model, model.images, model.labels, model.seeds, attack.eps)
    still = torch.zeros(32, dtype=torch.bool)
    masks = [attack.start(problem, number, model.images, still).mask for number in range(3)]
    assert all(mask is not None and (mask.flatten(1).sum(1) == 9).all() for mask in masks)
    first, second, third = (mask.flatten(1).float().argmax(1) for mask in masks if mask is not None)
    assert (second != third).float().mean() > 0.8
    assert len(second.unique()) > 10
    assert (first != second).float().mean() > 0.8


def test_the_curve_over_shares_is_nested_and_verified(subset: Subset, trained: nn.Module) -> None:
    """Smaller patches start from larger ones, and no record claims a share below its square's."""
    radii = [0.01, 0.05, 0.1, 0.3]
    suite = resolve_suite("s", SuiteParams(norm="patch", eps=radii, attacks=[{"name": "patch", "steps": 20}]))
    assert suite["norm"] == "patch"
    attempts = attack_suite(trained, subset, suite, seed=0)
    tried = attempts[attempts["attack"] == "patch"]
    assert (tried["distance"] <= tried["eps"] * (1 + 1e-5)).all()
    table = worst_case(attempts, radii)
    share = table.groupby("eps")["fooled"].mean().to_numpy()
    assert (np.diff(share) >= 0).all()
    assert share[0] < share[-1]
    won = table[table["fooled"]]
    assert (won["distance"] <= won["eps"] * (1 + 1e-5)).all()
    stored = np.array(stored_accuracy(attempts, radii))
    assert np.abs(stored - (1 - share)).max() <= 0.1, "eight bits hardly change a patch"
    kept = attempts[(attempts["attack"] == "stored") & attempts["fooled"]]
    assert (kept["distance"] <= kept["eps"] * (1 + 1e-5)).all()


def test_a_larger_patch_than_the_image_is_refused() -> None:
    model, wide = nn.Sequential(nn.Flatten(), nn.Linear(128, 2)), torch.rand(1, 1, 8, 16)
    label = torch.tensor([0])
    with pytest.raises(
        UserError, match=r"eps: a square of 10 x 10 pixels in images of 8 x 16\. .*0\.00781 to 0\.5"
    ):
        Patch(eps=0.8)(model, wide, label, seeds=label)
    with pytest.raises(UserError, match=r"eps: a square of 0 x 0 pixels in images of 8 x 16"):
        Patch(eps=0.007)(model, wide, label, seeds=label)
    with pytest.raises(ValidationError, match=r"1\.5: a patch covers at most the whole image"):
        SuiteParams(norm="patch", eps=[1.5], attacks=[{"name": "patch"}])


@pytest.mark.parametrize(
    ("norm", "name", "supported"),
    [("patch", "pgd", "Linf"), ("patch", "hopskipjump", "Linf and L2"), ("Linf", "patch", "patch")],
)
def test_a_norm_that_an_attack_does_not_serve_is_refused(norm: Any, name: str, supported: str) -> None:
    params = SuiteParams(norm=norm, eps=[0.1], attacks=[{"name": name}])
    message = rf"attacks\[0\]\.{name}\.norm: supports {supported}, but the suite has {norm}\."
    with pytest.raises(UserError, match=message):
        resolve_suite("s", params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patch(eps=0.1, alpha=0.001), "reaches 0.04 of eps 1"),
        (lambda: Patch(eps=0.1, norm="L2"), "supports patch, but the suite has L2"),
        (lambda: PGD(eps=0.1, norm="L2"), "supports Linf, but the suite has L2"),
        (lambda: Patch(eps=0.1, steps=0), "steps: got 0"),
    ],
)
def test_an_invalid_setting_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
