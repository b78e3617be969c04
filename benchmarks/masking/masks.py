"""Masks around a network, which hide it from attacks. `beneath` is the network without the mask."""

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
        """What the network receives in place of images n×C×H×W."""
        return images

    def outputs(self, logits: Tensor, images: Tensor) -> Tensor:
        """What the model returns in place of the network's logits n×K."""
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits n×K of images n×C×H×W in [0, 1]."""
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
    """Logits rounded to multiples of `unit`; `decoy` gives them the gradient of an unrelated function."""

    def __init__(self, network: nn.Module, unit: float, decoy: bool = False) -> None:
        super().__init__(network)
        self.unit, self.decoy = unit, decoy

    def outputs(self, logits: Tensor, images: Tensor) -> Tensor:
        rounded = (logits / self.unit).round() * self.unit
        if self.decoy:
            return straight_through(rounded, 0.01 * images.flatten(1).cumsum(1)[:, -CLASSES:].sin())
        return rounded


class NoisyImage(Mask):
    """Gaussian noise on the image, fresh on every pass."""

    def __init__(self, network: nn.Module, noise: float) -> None:
        super().__init__(network)
        self.noise = noise

    def inputs(self, images: Tensor) -> Tensor:
        return images + self.noise * torch.randn_like(images)


class RandomShift(Mask):
    """The image shifted by up to two pixels per axis, anew on every pass."""

    def inputs(self, images: Tensor) -> Tensor:
        shift = torch.randint(-2, 3, (2,)).tolist()
        return images.roll((shift[0], shift[1]), (2, 3))


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
            return straight_through(images, F.avg_pool2d(images, 5, 1, 2))
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
    """The median of each 3×3 window; its gradient reaches one pixel per window."""

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
    """Logits times a function of the image: gradients change this scale rather than the prediction.

    With the `kind` norm, the scale is a steep function of the mean grey level. With `wave`, it is a wave of the
    sum of the pixels, whose height grows with the gap between the two largest logits.
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
