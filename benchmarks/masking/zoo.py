"""The models of the test bench: masked ones of many kinds, and sound ones (architectures × trainings)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from benchmarks.masking import masks
from benchmarks.masking.hiding_networks import KWinners, Thermometer, Votes, WithHidingLayers, hidden_ripple
from benchmarks.masking.networks import ARCHITECTURES, CLASSES, fit, make_images
from medrobust.data.store import Subset

#: Kinds whose models were never used to choose a check or a threshold, fixed before the first result.
HELD_OUT = ("votes", "thermometer", "hashed", "hidden ripple", "leak", "preprocessing", "gradient noise")
SOUND = [
    *((name, training) for name in ARCHITECTURES for training in ("clean", "robust")),
    ("dense", "smooth_labels"), ("relu", "smooth_labels"), ("residual", "noise"), ("maxpool", "noise"),
    ("silu", "noise"), ("transformer", "noise"),
]  # fmt: skip


@dataclass(frozen=True)
class Workshop:
    """Images and trained networks of one seed; networks are kept in `folder`."""

    seed: int
    folder: Path

    @cached_property
    def train(self) -> Subset:
        """Images of 150 patients for training."""
        return make_images("train", 150, self.seed)

    @cached_property
    def test(self) -> Subset:
        """Images of 120 patients for the evaluation."""
        return make_images("test", 120, self.seed)

    def network(self, name: str, training: str, draw: int = 0) -> nn.Module:
        """An architecture of `networks.ARCHITECTURES`, trained; `draw` numbers its initial weights."""
        return self.keep(f"{name}-{training}-{draw}", ARCHITECTURES[name], training, draw)

    def keep(
        self, name: str, build: Callable[[], nn.Module], training: str, draw: int = 0, **settings: object
    ) -> nn.Module:
        """Train a network, or load it if it was trained before."""
        path = self.folder / f"{self.seed}-{name}.pt"
        torch.manual_seed(1000 * self.seed + draw)
        network = build()
        if path.is_file():
            network.load_state_dict(torch.load(path))
            return network.eval()
        fit(network, self.train, training, seed=self.seed + 100 * draw, **settings)  # type: ignore[arg-type]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
        return network


@dataclass(frozen=True)
class Entry:
    """A model of the bench. `kind` is the mask, or `sound`."""

    kind: str
    name: str
    build: Callable[[Workshop], nn.Module]


def _over(kind: str, name: str, base: tuple[str, str], wrap: Callable[[nn.Module], nn.Module]) -> Entry:
    """A mask over a trained network."""
    return Entry(kind, name, lambda shop: wrap(shop.network(*base)).eval())


def _winners(share: float, training: str, shop: Workshop) -> nn.Module:
    def build() -> nn.Module:
        return WithHidingLayers(nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), KWinners(share), nn.AvgPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), KWinners(share), nn.Flatten(), nn.Linear(576, 32),
            KWinners(share), nn.Linear(32, CLASSES),
        ))  # fmt: skip

    return shop.keep(f"winners{share}-{training}", build, training, steps=360)


def _distilled(temperature: float, shop: Workshop) -> nn.Module:
    """Defensive distillation (Papernot et al. 2016): both networks are trained at a temperature, and used at 1."""
    teacher = shop.keep(f"teacher{temperature}", ARCHITECTURES["relu"], "clean", temperature=temperature)
    with torch.no_grad():
        targets = (teacher(shop.train.batch(np.arange(len(shop.train)))) / temperature).softmax(1)
    name = f"student{temperature}"
    return shop.keep(name, ARCHITECTURES["relu"], "clean", 1, temperature=temperature, targets=targets)


def _squeezed(width: float, shop: Workshop) -> nn.Module:
    def build() -> nn.Module:
        return masks.Squeezed(ARCHITECTURES["relu"](), width)

    return shop.keep(f"squeezed{width}", build, "clean")


def _votes(shop: Workshop, leak: float = 0.0, decoy: bool = False) -> nn.Module:
    return Votes([shop.network("relu", "clean", draw) for draw in range(5)], leak, decoy).eval()


def _thermometer(levels: int, training: str, shop: Workshop) -> nn.Module:
    def build() -> nn.Module:
        return Thermometer(levels, nn.Sequential(
            nn.Conv2d(levels, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(288, CLASSES)
        ))  # fmt: skip

    return shop.keep(f"thermometer{levels}-{training}", build, training)


CLEAN, ROBUST = ("relu", "clean"), ("relu", "robust")
#: At least 25 models of at least 10 kinds.
MASKED = [
    _over("ripple", "sine 0.1, 400", CLEAN, lambda n: masks.Ripple(n, 0.1, 400)),
    _over("ripple", "sine 0.3, 300", ("residual", "clean"), lambda n: masks.Ripple(n, 0.3, 300)),
    _over("ripple", "triangle 0.2, 60", ("silu", "clean"), lambda n: masks.Ripple(n, 0.2, 60, masks.triangle)),
    *(Entry("k-winners", f"{s:.0%}", partial(_winners, s, "clean")) for s in (0.05, 0.1, 0.2)),
    *(Entry("k-winners, robust", f"{s:.0%}", partial(_winners, s, "robust")) for s in (0.1, 0.2)),
    _over("shatter", "0.02, 0.008", CLEAN, lambda n: masks.Shatter(n, 0.02, 0.008)),
    _over("shatter", "0.01, 0.04", ("residual", "clean"), lambda n: masks.Shatter(n, 0.01, 0.04)),
    _over("quantised image", "16 levels", CLEAN, lambda n: masks.Staircase(n, 16)),
    _over("quantised image", "16 levels, smooth", CLEAN, lambda n: masks.Staircase(n, 16, "soft")),
    _over("rounded logits", "to 1", CLEAN, lambda n: masks.Rounded(n, 1.0)),
    _over("rounded logits", "to 0.25, other gradient", CLEAN, lambda n: masks.Rounded(n, 0.25, decoy=True)),
    _over("random", "noise on the image", CLEAN, lambda n: masks.NoisyImage(n, 0.1)),
    _over("random", "shifts", ("residual", "clean"), masks.RandomShift),
    _over("saturated", "logits times 10,000", CLEAN, lambda n: masks.Scaled(n, 1e4)),
    _over("saturated", "tanh", CLEAN, lambda n: masks.Scaled(n, 2.0, squash=True)),
    _over("stop-gradient", "rows", CLEAN, lambda n: masks.Detached(n, "rows")),
    _over("stop-gradient", "blurred", CLEAN, lambda n: masks.Detached(n, "blurred")),
    Entry("distilled", "T = 50", partial(_distilled, 50.0)),
    _over("robust and masked", "ripple", ROBUST, lambda n: masks.Ripple(n, 0.1, 400)),
    _over("robust and masked", "shatter", ROBUST, lambda n: masks.Shatter(n, 0.02, 0.008)),
    _over("robust and masked", "16 levels", ("residual", "robust"), lambda n: masks.Staircase(n, 16)),
    _over("reversed gradient", "sign", CLEAN, masks.Reversed),
    Entry("squeezed pixels", "tanh 0.03", partial(_squeezed, 0.03)),
    Entry("votes", "hard", _votes),
    Entry("votes", "with a leak", partial(_votes, leak=0.01)),
    Entry("votes", "with a false leak", partial(_votes, leak=0.01, decoy=True)),
    Entry("thermometer", "8 levels", partial(_thermometer, 8, "clean")),
    Entry("thermometer", "15 levels", partial(_thermometer, 15, "clean")),
    _over("hashed", "shift", ("residual", "clean"), lambda n: masks.Hashed(n, "shift")),
    _over("hashed", "noise", ("silu", "clean"), lambda n: masks.Hashed(n, "noise", 500)),
    _over("hidden ripple", "first layer", CLEAN, lambda n: hidden_ripple(n, 4, 0.15, 120)),
    _over("hidden ripple", "second layer, robust", ROBUST, lambda n: hidden_ripple(n, 8, 0.15, 120)),
    _over("leak", "norm", CLEAN, lambda n: masks.Leak(n, "norm")),
    _over("leak", "wave of the scale", CLEAN, lambda n: masks.Leak(n, "wave")),
    _over("preprocessing", "cosines", CLEAN, lambda n: masks.Cosines(n, 0.15)),
    _over("preprocessing", "cosines, identity's gradient", CLEAN, lambda n: masks.Cosines(n, 0.15, "through")),
    _over("preprocessing", "median", CLEAN, masks.Median),
    _over("gradient noise", "fresh", CLEAN, lambda n: masks.GradientNoise(n, 10.0, True)),
    _over("gradient noise", "fixed", ROBUST, lambda n: masks.GradientNoise(n, 10.0, False)),
]
ENTRIES = [*MASKED, *(Entry("sound", f"{n}, {t}", lambda shop, n=n, t=t: shop.network(n, t)) for n, t in SOUND)]  # type: ignore[misc]


def beneath(model: nn.Module) -> nn.Module:
    """The network beneath a mask, for attacks that circumvent it; a sound model is its own."""
    return cast(nn.Module, getattr(model, "beneath", model))
