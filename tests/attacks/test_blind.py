"""Attacks without gradients of the attacked model: stripes, noise, squares, pixels, universal, transfer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from medrobust.attacks.base import QueryCounter, margin
from medrobust.attacks.methods.noise import Noise
from medrobust.attacks.methods.one_pixel import OnePixel
from medrobust.attacks.methods.square import Square, _bumps
from medrobust.attacks.methods.stripe import Mode, Stripe
from medrobust.attacks.methods.transfer import Transfer
from medrobust.attacks.methods.universal import Universal, fit
from medrobust.attacks.projection import distance
from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.core.records import file_hash
from medrobust.data.store import Subset
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from tests.attacks.conftest import AttackedModel

Make = Callable[..., AttackedModel]


def fooled(model: AttackedModel, attack: Any) -> int:
    adv = attack(model, model.images, model.labels, seeds=model.seeds)
    return int((model(adv).argmax(1) != model.labels).sum())


def queries(model: AttackedModel, attack: Any) -> tuple[Tensor, Tensor]:
    """Gradient evaluations and queries per image."""
    counter = QueryCounter(model, len(model.images))
    attack(counter, model.images, model.labels, seeds=model.seeds)
    return counter.gradients, counter.queries


@pytest.mark.parametrize("mode", ["random", "best_of", "flip", "whitebox"])
@pytest.mark.parametrize(("direction", "across"), [("vertical", 3), ("horizontal", 2)])
@pytest.mark.parametrize("band", [1, 3])
def test_stripes_match_their_definition(
    mode: Any, direction: Any, across: int, band: int, attacked_model: Make
) -> None:
    """x' = clip(x + eps·s) with s = ±1, constant along a stripe, over its width and over the channels."""
    model = attacked_model(4, channels=3)
    attack = Stripe(eps=0.05, mode=mode, direction=direction, band=band, queries=20)
    adv = attack(model, model.images, model.labels, seeds=model.seeds)
    shift = adv - model.images
    sign = torch.where(shift.abs() > 1e-6, shift.sign(), 0.0)
    free = (model.images >= 0.05) & (model.images <= 0.95)
    assert (shift[free].abs() - 0.05).abs().max() < 1e-6, "every unclipped pixel moves by eps"
    line = sign.movedim(across, -1).flatten(1, -2)  # all pixels of a stripe in one column
    assert line.shape[-1] == (10 if direction == "vertical" else 12)
    for start in range(0, line.shape[-1], band):
        stripe = line[..., start : start + band].flatten(1)
        assert ((stripe >= 0).all(1) | (stripe <= 0).all(1)).all()


def test_the_modes_of_stripes_rise_in_strength_and_keep_their_budgets(attacked_model: Make) -> None:
    model = attacked_model(4)
    counts = {mode: fooled(model, Stripe(eps=0.12, mode=mode)) for mode in get_args(Mode)}
    assert counts["random"] < counts["best_of"] <= counts["flip"]
    assert counts["best_of"] <= counts["whitebox"]
    for mode, limit in (("random", 1), ("best_of", 30), ("flip", 30)):
        gradients, asked = queries(model, Stripe(eps=0.02, mode=mode, queries=30))  # type: ignore[arg-type]
        assert gradients.max() == 0
        assert asked.max() == limit
    gradients, asked = queries(model, Stripe(eps=0.02, mode="whitebox", steps=7))
    assert (gradients.max().item(), asked.max().item()) == (7, 1)


@pytest.mark.parametrize("kind", ["uniform", "corners"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_noise_uses_its_draws_and_gains_from_more(kind: Any, norm: Any, attacked_model: Make) -> None:
    model = attacked_model(4)
    eps = 0.3 if norm == "Linf" else 3.0
    one, many = (
        Noise(eps=eps, norm=norm, kind=kind, draws=n)(model, model.images, model.labels, seeds=model.seeds)
        for n in (1, 60)
    )
    gains = [margin(model(adv), model.labels) for adv in (one, many)]
    assert (gains[1] >= gains[0]).all()
    assert (gains[1] > gains[0]).float().mean() > 0.5
    _, asked = queries(model, Noise(eps=1e-4, norm=norm, kind=kind, draws=17))
    assert (asked == 17).all()


def test_corners_lie_on_the_border(attacked_model: Make) -> None:
    model = attacked_model(4)
    grey = torch.full_like(model.images, 0.5)
    for norm, eps in (("Linf", 0.1), ("L2", 0.7)):
        adv = Noise(eps=eps, norm=norm, kind="corners", draws=1)(model, grey, model.labels, seeds=model.seeds)  # type: ignore[arg-type]
        assert torch.allclose(distance(adv, grey, norm), torch.tensor(eps))  # type: ignore[arg-type]
        assert (adv - grey).abs().flatten(1).std(1).max() < 1e-6


@pytest.mark.parametrize("side", [3, 5, 7, 11])
def test_bumps_are_those_of_the_reference(side: int, attacked_model: Make) -> None:
    """Compared with torchattacks' port, which rotates them at random."""
    import torchattacks

    with torch.random.fork_rng():
        wanted = torchattacks.Square(attacked_model(4), norm="L2").eta(side)
    ours = _bumps(side, torch.zeros(1))
    assert min((ours - wanted).abs().max(), (ours.T - wanted).abs().max()) < 1e-6


def test_square_in_l2_lies_on_the_sphere_and_is_as_strong_as_torchattacks(attacked_model: Make) -> None:
    """On images of 15×15, because torchattacks fails on 12×10."""
    import torchattacks

    model = attacked_model(4)
    padded = torch.nn.functional.pad(model.images, (2, 3, 1, 2))
    inner = torch.nn.Sequential(torch.nn.ZeroPad2d((-2, -3, -1, -2)), model).eval()
    with pytest.raises(RuntimeError, match="shape"), torch.random.fork_rng():
        torchattacks.Square(model, norm="L2", eps=1.0, n_queries=5)(model.images, model.labels)
    ours = Square(eps=1.4, norm="L2", queries=300)(inner, padded, model.labels, seeds=model.seeds)
    with torch.random.fork_rng():
        attack = torchattacks.Square(inner, norm="L2", eps=1.4, n_queries=300, p_init=0.1)
        theirs = attack(padded, model.labels)
    counts = [int((inner(adv).argmax(1) != model.labels).sum()) for adv in (ours, theirs)]
    assert counts[0] >= counts[1] - 3
    length = distance(
        Square(eps=0.5, norm="L2", queries=30)(inner, padded, model.labels, seeds=model.seeds), padded, "L2"
    )
    assert length.max() <= 0.5 * (1 + 1e-5)
    assert length.min() > 0.25, "clipping shortens some"


@pytest.mark.parametrize("pixels", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_more_than_k_pixels_change(pixels: int, channels: int, attacked_model: Make) -> None:
    model = attacked_model(4, channels=channels)
    attack = OnePixel(eps=1.0, pixels=pixels, population=20, generations=4, allow_weak=True)
    adv = attack(model, model.images, model.labels, seeds=model.seeds)
    changed = (adv != model.images).any(1).flatten(1).sum(1)
    assert changed.max() <= pixels
    assert changed.min() >= 1
    bounded = OnePixel(eps=0.1, pixels=pixels, population=20, generations=4, allow_weak=True)
    near = bounded(model, model.images, model.labels, seeds=model.seeds)
    assert distance(near, model.images).max() <= 0.1 + 1e-6


def test_evolution_finds_the_one_pixel_that_matters() -> None:
    """Only pixel (7, 2) matters, and only if it is bright."""

    class Spot(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            spot = images[:, 0, 7, 2]
            return torch.stack([torch.full_like(spot, 0.8), spot], 1)

    clean, labels = torch.zeros(2, 1, 12, 10), torch.zeros(2).long()
    attack = OnePixel(eps=1.0, population=100, generations=30, allow_weak=True)
    adv = attack(Spot(), clean, labels, seeds=torch.tensor([1, 2]))
    assert (Spot()(adv).argmax(1) == 1).all()
    assert torch.count_nonzero(adv) == 2


def test_one_pixel_spends_its_whole_budget_on_images_that_are_not_fooled(attacked_model: Make) -> None:
    model = attacked_model(4)
    _, asked = queries(model, OnePixel(eps=1e-4, population=11, generations=5, allow_weak=True))
    assert (asked == 66).all()


def half(model: AttackedModel, rows: slice) -> Subset:
    pixels = (model.images[rows, 0] * 255).round().to(torch.uint8).numpy()
    ids = np.array([f"i{number}" for number in range(len(pixels))])
    return Subset(pixels, np.arange(len(ids)), model.labels[rows].numpy(), ids, ids, ["a", "b", "c", "d"])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_universal_pattern_fitted_on_some_images_fools_others(norm: Any, attacked_model: Make) -> None:
    model = attacked_model(4, n=64)
    train = half(model, slice(0, 64, 2))
    images, labels, seeds = model.images[1::2], model.labels[1::2], model.seeds[1::2]
    eps = 0.15 if norm == "Linf" else 1.4
    attack = Universal(eps=eps, norm=norm, epochs=30).with_training(train)
    adv = attack(model, images, labels, seeds=seeds)
    shift = adv - images
    free = (adv > 0) & (adv < 1)
    pattern = attack.fitted[model][eps]
    assert torch.allclose(shift[free], pattern.expand_as(shift)[free], atol=1e-6), "one pattern for all images"
    noise = Noise(eps=eps, norm=norm, draws=1)(model, images, labels, seeds=seeds)
    rates = [(model(adv).argmax(1) != labels).float().mean().item() for adv in (adv, noise)]
    assert rates[0] > rates[1] + 0.2
    assert distance(pattern, torch.zeros_like(pattern), norm).item() > 0.9 * eps


def test_a_universal_pattern_is_fitted_once_per_model_and_radius_and_charged_to_no_image(
    attacked_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medrobust.attacks.methods import universal

    model, fits = attacked_model(4), []

    def counted(*args: Any) -> Tensor:
        fits.append(1)
        return fit(*args)

    monkeypatch.setattr(universal, "fit", counted)
    attack = Universal(eps=0.1, epochs=20).with_training(half(model, slice(None)))
    counter = QueryCounter(model, 32)
    for _ in range(2):
        attack(counter, model.images, model.labels, seeds=model.seeds)
    assert len(fits) == 1
    assert counter.gradients.sum() == 0
    other = attacked_model(4, n=64)
    attack(other, model.images, model.labels, seeds=model.seeds)
    assert len(fits) == 2, "each model has its own pattern"
    assert not torch.equal(attack.fitted[model][0.1], attack.fitted[other][0.1])
    with pytest.raises(UserError, match="no training images"):
        Universal(eps=0.1)(model, model.images, model.labels, seeds=model.seeds)


def test_transfer_images_are_made_on_the_surrogate_alone(attacked_model: Make) -> None:
    source, model = attacked_model(4), attacked_model(4, n=64)
    attack = Transfer(eps=0.15, source=source)
    counter = QueryCounter(model, 32)
    adv = attack(counter, source.images, source.labels, seeds=source.seeds)
    assert counter.gradients.sum() == 0
    direct = attack.inner()(source, source.images, source.labels, seeds=source.seeds)
    assert torch.allclose(adv, direct, atol=1e-6)
    wrong = model(source.images).argmax(1) != source.labels
    assert (model(adv).argmax(1) != source.labels).sum() > wrong.sum(), "something transfers"


def test_a_surrogate_is_the_checkpoint_with_the_suite_s_hash(tmp_path: Path) -> None:
    params = ModelParams(timm="resnet10t", weights="none", image_size=32)
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "m", build_classifier(params, ["a", "b"]), params, {})
    digest = file_hash(tmp_path / "m" / "model.safetensors")
    model, images = build_classifier(params, ["a", "b"]).eval(), torch.rand(2, 1, 32, 32)
    attack = Transfer(eps=0.1, source=str(tmp_path / "m"), sha256=digest, attack={"name": "bim", "steps": 2})
    assert distance(attack(model, images, torch.tensor([0, 1]), seeds=torch.arange(2)), images).max() > 0.05
    with pytest.raises(UserError, match="sha256"):
        Transfer(eps=0.1, source=str(tmp_path / "m"), sha256="0" * 64)(
            model, images, torch.tensor([0, 1]), seeds=torch.arange(2)
        )
    with pytest.raises(UserError, match=r"without sha256.*attacks\.surrogates"):
        Transfer(eps=0.1, source="m-clean")(model, images, torch.tensor([0, 1]), seeds=torch.arange(2))
    other = build_classifier(params, ["a", "b", "c"]).eval()
    with pytest.raises(UserError, match="2 classes, but the attacked model has 3"):
        attack(other, images, torch.tensor([0, 1]), seeds=torch.arange(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stripe(eps=0.1, mode="zigzag"), "mode: got 'zigzag'.*'flip' or 'whitebox'"),  # type: ignore[arg-type]
        (lambda: Stripe(eps=0.1, direction="up"), "direction: got 'up'"),  # type: ignore[arg-type]
        (lambda: Stripe(eps=0.1, band=0), "band: got 0"),
        (lambda: Noise(eps=0.1, kind="pink"), "kind: got 'pink'"),  # type: ignore[arg-type]
        (lambda: Noise(eps=0.1, draws=0), "draws: got 0"),
        (lambda: OnePixel(eps=1.0, population=10), "10 candidates over 100 generations.*400 over 100"),
        (lambda: OnePixel(eps=1.0, population=3, allow_weak=True), "population: got 3"),
        (lambda: Square(eps=1.0, queries=0), "queries: got 0"),
        (lambda: Universal(eps=0.1, epochs=2), "Too little to reach eps"),
        (lambda: Transfer(eps=0.1), "no source"),
        (lambda: Transfer(eps=0.1, source="m", sha256="a", attack={"name": "magic"}), "no attack 'magic'"),
        (
            lambda: Transfer(eps=0.1, source="m", sha256="a", attack={"name": "bim", "x": 1}),
            r"attack\.attack\.x: unknown hyper-parameter",
        ),
        (
            lambda: Transfer(eps=1.0, norm="L2", source="m", sha256="a", attack={"name": "bim"}),
            "but the suite has L2",
        ),
    ],
)
def test_an_invalid_setting_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
