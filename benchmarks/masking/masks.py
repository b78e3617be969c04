"""Ways to hide a network from attacks. `beneath` is the network for attacks that circumvent the mask."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.masking.networks import CLASSES, SIZE

Wave = Callable[[Tensor], Tensor]


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value, with the gradient of the surrogate."""
    return surrogate + (value - surrogate).detach()


def triangle(phase: Tensor) -> Tensor:
    """A wave between -1 and 1 of period 2·pi, whose slope is ±2/pi."""
    return 2 / torch.pi * phase.sin().asin()


class Mask(nn.Module):
    """Base of the masks: wraps a network. `inputs` and `outputs` change what enters and what leaves it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def beneath(self) -> nn.Module:
        """A network with useful gradients that predicts almost the same."""
        return self.network

    def inputs(self, images: Tensor) -> Tensor:
        return images

    def outputs(self, logits: Tensor, images: Tensor) -> Tensor:
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(self.network(self.inputs(images)), images)


class Ripple(Mask):
    """A wave on each logit: its slope drowns that of the network, its height changes few predictions."""

    def __init__(self, network: nn.Module, height: float, frequency: float, wave: Wave = torch.sin) -> None:
        super().__init__(network)
        self.height, self.frequency, self.wave = height, frequency, wave

    def outputs(self, logits: Tensor, images: Tensor) -> Tensor:
        return logits + self.height * self.wave(self.frequency * logits)


class Shatter(Mask):
    """A wave on each pixel, `height` high and `period` long (both in [0, 1] pixel units)."""

    def __init__(self, network: nn.Module, height: float, period: float, wave: Wave = torch.sin) -> None:
        super().__init__(network)
        self.height, self.period, self.wave = height, period, wave

    def inputs(self, images: Tensor) -> Tensor:
        return images + self.height * self.wave(2 * torch.pi * images / self.period)


class Staircase(Mask):
    """Pixels rounded to levels: `hard`, `soft` (a smooth staircase) or `through` (the identity's gradient)."""

    def __init__(self, network: nn.Module, levels: int, kind: str = "hard") -> None:
        super().__init__(network)
        self.levels, self.kind = levels, kind

    def inputs(self, images: Tensor) -> Tensor:
        scaled = images * self.levels
        if self.kind == "soft":
            below = scaled.floor()
            return (below + 0.5 + 0.5 * torch.tanh(12 * (scaled - below - 0.5))) / self.levels
        rounded = scaled.round()
        return (straight_through(rounded, scaled) if self.kind == "through" else rounded) / self.levels


class Rounded(Mask):
    """Logits rounded to multiples of `unit`; `kind` as in `Staircase`; `absorbed` = by adding a large number."""

    def __init__(self, network: nn.Module, unit: float, kind: str = "hard") -> None:
        super().__init__(network)
        self.unit, self.kind = unit, kind

    def outputs(self, logits: Tensor, images: Tensor) -> Tensor:
        if self.kind == "absorbed":
            large = self.unit * 2.0**23
            return (logits + large) - large
        rounded = (logits / self.unit).round() * self.unit
        if self.kind == "decoy":  # the gradient of an unrelated function
            decoy = images.flatten(1).cumsum(1)[:, -CLASSES:].sin()
            return straight_through(rounded, 0.01 * decoy)
        return rounded


class Random(Mask):
    """Fresh noise on every pass: on the image, or on the gradient alone."""

    def __init__(self, network: nn.Module, noise: float, where: str = "image") -> None:
        super().__init__(network)
        self.noise, self.where = noise, where

    def inputs(self, images: Tensor) -> Tensor:
        if self.where == "image":
            return images + self.noise * torch.randn_like(images)
        if self.where == "crop":
            shift = torch.randint(-2, 3, (2,)).tolist()
            return images.roll((shift[0], shift[1]), (2, 3))
        return images


class Scaled(Mask):
    """Logits times a factor: the cross-entropy saturates."""

    def __init__(self, network: nn.Module, factor: float, squash: bool = False) -> None:
        super().__init__(network)
        self.factor, self.squash = factor, squash

    def outputs(self, logits: Tensor, images: Tensor) -> Tensor:
        return torch.tanh(self.factor * logits) if self.squash else self.factor * logits


class Detached(Mask):
    """The gradient flows through a share of the image only: rows, or a blurred copy."""

    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__(network)
        self.kind = kind

    def inputs(self, images: Tensor) -> Tensor:
        if self.kind == "blurred":
            blurred = F.avg_pool2d(images, 5, 1, 2)
            return blurred + (images - blurred).detach()
        open_rows = (torch.arange(SIZE) % 4 == 0).view(1, 1, -1, 1)
        return torch.where(open_rows, images, images.detach())


class Reversed(Mask):
    """The identity with a gradient of the wrong sign."""

    def inputs(self, images: Tensor) -> Tensor:
        return straight_through(images, -images)


class Squeezed(Mask):
    """Pixels pass a steep tanh around grey levels that are far from them, so that gradients almost vanish."""

    def __init__(self, network: nn.Module, width: float) -> None:
        super().__init__(network)
        self.width = width

    def inputs(self, images: Tensor) -> Tensor:
        return 0.5 + self.width * torch.tanh((images - 0.5) / self.width)


class Hashed(Mask):
    """A transform chosen by a hash of the image: deterministic, and another one after each step of an attack."""

    def __init__(self, network: nn.Module, kind: str, levels: int = 64) -> None:
        super().__init__(network)
        self.kind, self.levels = kind, levels

    def inputs(self, images: Tensor) -> Tensor:
        key = (images.detach().double().flatten(1).mean(1) * self.levels).floor().long()
        if self.kind == "shift":
            shifts = key * 7919 % 25
            moved = [
                image.roll((int(s) // 5 - 2, int(s) % 5 - 2), (1, 2))
                for image, s in zip(images, shifts, strict=True)
            ]
            return torch.stack(moved)
        pixel = torch.arange(SIZE * SIZE).view(1, 1, SIZE, SIZE)
        noise = ((key.view(-1, 1, 1, 1) * 7919 + pixel * 104729) % 1009) / 504.0 - 1
        return images + 0.12 * noise.to(images)


class Votes(nn.Module):
    """Each network has one vote. `leak` is the weight of the mean logits beside them; `decoy` turns its sign."""

    def __init__(self, networks: list[nn.Module], leak: float = 0.0, decoy: bool = False) -> None:
        super().__init__()
        self.networks, self.leak, self.decoy = nn.ModuleList(networks), leak, decoy

    @property
    def beneath(self) -> nn.Module:
        return Mean(list(self.networks))

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([network(images) for network in self.networks])
        votes = F.one_hot(logits.argmax(2), CLASSES).to(images).mean(0)
        if not self.leak:
            return votes * 10 + 0 * logits.mean(0)
        return 10 * votes + self.leak * logits.mean(0) * (-1 if self.decoy else 1)


class Mean(nn.Module):
    """Mean logits of several networks."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([network(images) for network in self.networks]).mean(0)


class KWinners(nn.Module):
    """Keeps the largest `share` of each image's activations, and sets the others to zero."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.open = share, False

    def forward(self, values: Tensor) -> Tensor:
        flat = values.flatten(1)
        count = max(int(self.share * flat.shape[1]), 1)
        threshold = flat.topk(count, dim=1).values[:, -1:]
        kept = torch.where(flat >= threshold, flat, 0).view_as(values)
        return straight_through(kept, values) if self.open else kept


class KWinnersNetwork(Mask):
    """A network with `KWinners`; beneath it lets all gradients through."""

    @property
    def beneath(self) -> nn.Module:
        other = copy.deepcopy(self.network)
        for module in other.modules():
            if isinstance(module, KWinners):
                module.open = True
        return other


class HiddenWave(nn.Module):
    """A wave on each feature inside a network; `height` is a share of the features' own size."""

    def __init__(self, height: float, frequency: float) -> None:
        super().__init__()
        self.height, self.frequency, self.flat = height, frequency, False

    def forward(self, values: Tensor) -> Tensor:
        return values if self.flat else values + self.height * (self.frequency * values).sin()


class HiddenRipple(Mask):
    """A network whose features carry a `HiddenWave`."""

    def __init__(self, network: nn.Module, before: int, height: float, frequency: float) -> None:
        layers = list(copy.deepcopy(network).children())
        super().__init__(nn.Sequential(*layers[:before], HiddenWave(height, frequency), *layers[before:]))

    @property
    def beneath(self) -> nn.Module:
        other = copy.deepcopy(self.network)
        for module in other.modules():
            if isinstance(module, HiddenWave):
                module.flat = True
        return other


class Thermometer(nn.Module):
    """Pixels as bits: channel k is 1 where the pixel is above level k; `soft` gives bits a steep gradient."""

    def __init__(self, levels: int, network: nn.Module) -> None:
        super().__init__()
        self.levels, self.network, self.steepness = levels, network, 0.0

    @property
    def beneath(self) -> nn.Module:
        other = copy.deepcopy(self)
        other.steepness = 20.0
        return other

    def forward(self, images: Tensor) -> Tensor:
        grid = torch.arange(1, self.levels + 1, device=images.device).view(1, -1, 1, 1) / (self.levels + 1)
        bits = (images > grid).to(images)
        if self.steepness:
            bits = straight_through(bits, torch.sigmoid(self.steepness * (images - grid)))
        return self.network(bits)


class Cosines(Mask):
    """Blocks of 4×4 pixels as rounded cosine coefficients (as in JPEG); `kind` as in `Staircase`."""

    def __init__(self, network: nn.Module, unit: float, kind: str = "hard") -> None:
        super().__init__(network)
        self.unit, self.kind = unit, kind
        order = torch.arange(4.0)
        basis = (torch.pi * (2 * order[None] + 1) * order[:, None] / 8).cos()
        self.register_buffer("basis", basis / basis.norm(dim=1, keepdim=True))

    def inputs(self, images: Tensor) -> Tensor:
        count, size = len(images), SIZE // 4
        blocks = images.view(count, 1, size, 4, size, 4).permute(0, 1, 2, 4, 3, 5)
        basis = self.get_buffer("basis").to(images)
        scaled = basis @ blocks @ basis.T / self.unit
        rounded = straight_through(scaled.round(), scaled) if self.kind == "through" else scaled.round()
        back = basis.T @ (rounded * self.unit) @ basis
        return back.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


class Median(Mask):
    """The median of each 3×3 window, with a ripple-free gradient that reaches one pixel per window."""

    def inputs(self, images: Tensor) -> Tensor:
        windows = F.unfold(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3)
        return windows.median(1).values.view_as(images)


class NoisyGradient(torch.autograd.Function):
    """The identity; the gradient gets noise of `scale` times its own size, fresh or fixed."""

    @staticmethod
    def forward(ctx: "torch.autograd.function.FunctionCtx", images: Tensor, scale: float, fresh: bool) -> Tensor:
        ctx.scale, ctx.fresh = scale, fresh  # type: ignore[attr-defined]
        return images.clone()

    @staticmethod
    def backward(ctx: "torch.autograd.function.FunctionCtx", *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0]
        generator = None if ctx.fresh else torch.Generator().manual_seed(0)  # type: ignore[attr-defined]
        noise = torch.randn(gradient.shape[1:], generator=generator).to(gradient)
        size = gradient.flatten(1).std(1).view(-1, 1, 1, 1)
        return gradient + ctx.scale * size * noise, None, None  # type: ignore[attr-defined]


class GradientNoise(Mask):
    """Gradients with noise, logits without."""

    def __init__(self, network: nn.Module, scale: float, fresh: bool) -> None:
        super().__init__(network)
        self.scale, self.fresh = scale, fresh

    def inputs(self, images: Tensor) -> Tensor:
        return NoisyGradient.apply(images, self.scale, self.fresh)


class Leak(Mask):
    """The scale of the logits depends on the image so that the gradient leads to a large scale, not to an error.

    `kind` norm: the scale is a steep function of the mean grey; margin: the margin itself is squashed, so that
    confident images have almost no gradient of their own.
    """

    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__(network)
        self.kind = kind

    def outputs(self, logits: Tensor, images: Tensor) -> Tensor:
        if self.kind == "norm":
            return logits * (40 * (images.flatten(1).mean(1, keepdim=True) - 0.47)).exp()
        top = logits.sort(1, descending=True).values
        gap = top[:, :1] - top[:, 1:2]
        centred = logits - logits.mean(1, keepdim=True)
        wave = (1.2 + (images.flatten(1).sum(1, keepdim=True) * 60).sin()) * (1 + gap.detach())
        return centred * wave
