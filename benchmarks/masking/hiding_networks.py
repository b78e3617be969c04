"""Networks that hide their own gradient: by a layer inside, by bits in place of pixels, or by votes."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.masking.masks import Mask, straight_through
from benchmarks.masking.networks import CLASSES


class Votes(nn.Module):
    """One vote per network. `leak` is the weight of the mean logits that are added; `decoy` turns their sign."""

    def __init__(self, networks: list[nn.Module], leak: float = 0.0, decoy: bool = False) -> None:
        super().__init__()
        self.networks, self.leak, self.decoy = nn.ModuleList(networks), leak, decoy

    @property
    def beneath(self) -> nn.Module:
        """The mean logits of the networks."""
        return Mean(list(self.networks))

    def forward(self, images: Tensor) -> Tensor:
        """Logits n×K of images n×C×H×W in [0, 1]."""
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
        """Logits n×K of images n×C×H×W in [0, 1]."""
        return torch.stack([network(images) for network in self.networks]).mean(0)


class HidingLayer(nn.Module):
    """Base of layers inside a network that hide its gradient; `is_open` turns the hiding off."""

    is_open = False


class WithHidingLayers(Mask):
    """A network with hiding layers; in the one beneath they are open."""

    @property
    def beneath(self) -> nn.Module:
        """A copy of the network whose hiding layers are open."""
        other = copy.deepcopy(self.network)
        for module in other.modules():
            if isinstance(module, HidingLayer):
                module.is_open = True
        return other


class KWinners(HidingLayer):
    """Keeps the largest `share` of each image's activations, and sets the others to zero.

    Open, it lets all gradients through.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Activations n×... to activations of the same shape."""
        flat = values.flatten(1)
        count = max(int(self.share * flat.shape[1]), 1)
        threshold = flat.topk(count, dim=1).values[:, -1:]
        kept = torch.where(flat >= threshold, flat, 0).view_as(values)
        return straight_through(kept, values) if self.is_open else kept


class HiddenWave(HidingLayer):
    """A wave of this height and frequency on each feature; open, it is the identity."""

    def __init__(self, height: float, frequency: float) -> None:
        super().__init__()
        self.height, self.frequency = height, frequency

    def forward(self, values: Tensor) -> Tensor:
        """Features n×... to features of the same shape."""
        return values if self.is_open else values + self.height * (self.frequency * values).sin()


def hidden_ripple(network: nn.Module, before: int, height: float, frequency: float) -> Mask:
    """The network with a `HiddenWave` before the layer at position `before`."""
    layers = list(copy.deepcopy(network).children())
    return WithHidingLayers(nn.Sequential(*layers[:before], HiddenWave(height, frequency), *layers[before:]))


class Thermometer(nn.Module):
    """Pixels as bits: channel k is 1 where the pixel is above level k. `steepness` gives bits a gradient."""

    def __init__(self, levels: int, network: nn.Module) -> None:
        super().__init__()
        self.levels, self.network, self.steepness = levels, network, 0.0

    @property
    def beneath(self) -> nn.Module:
        """A copy whose bits have a gradient."""
        other = copy.deepcopy(self)
        other.steepness = 20.0
        return other

    def forward(self, images: Tensor) -> Tensor:
        """Logits n×K of images n×1×H×W in [0, 1]."""
        grid = torch.arange(1, self.levels + 1, device=images.device).view(1, -1, 1, 1) / (self.levels + 1)
        bits = (images > grid).to(images)
        if self.steepness:
            bits = straight_through(bits, torch.sigmoid(self.steepness * (images - grid)))
        return self.network(bits)
