"""Images, architectures and trainings of the test bench: 12×12 grey images of four classes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.methods.iterative import PGD
from medrobust.data.store import Subset

SIZE, CLASSES, EPS = 12, 4, 0.035
BATCH = 64


def make_images(name: str, patients: int, seed: int) -> Subset:
    """Four images per patient; each class adds a smooth pattern of its own to noise. `seed` sets the patterns."""
    patterns = _smooth(np.random.default_rng(seed), CLASSES)
    rng = np.random.default_rng([seed, patients])
    labels = np.arange(4 * patients) // 4 % CLASSES
    noise = 14 * rng.normal(size=(len(labels), SIZE, SIZE)) + 12 * _smooth(rng, len(labels))
    pixels = 120 + 17 * patterns[labels] + noise
    ids = np.array([f"{name}{number}" for number in range(len(labels))])
    owners = np.array([f"{name}-p{number // 4}" for number in range(len(labels))])
    classes = [f"class {number}" for number in range(CLASSES)]
    return Subset(pixels.clip(0, 255).astype(np.uint8), np.arange(len(labels)), labels, ids, owners, classes)


def _smooth(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random images of 4×4 blocks with unit variance, count×SIZE×SIZE."""
    return np.kron(rng.normal(size=(count, SIZE // 3, SIZE // 3)), np.ones((3, 3)))


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        """Maps n×C×H×W to maps of the same shape."""
        return F.relu(maps + self.body(maps))


class Patches(nn.Module):
    """A vision transformer of one block over 3×3 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 24, 3, stride=3)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, 24))
        self.block = nn.TransformerEncoderLayer(
            24, 4, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.head = nn.Linear(24, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits n×K of images n×1×H×W in [0, 1]."""
        tokens = self.embed(images - 0.47).flatten(2).transpose(1, 2) + self.position
        # A fused kernel of eval mode would not use the gradient of the attention; the plain path does.
        attended = tokens + self.block._sa_block(self.block.norm1(tokens), None, None)
        return self.head((attended + self.block._ff_block(self.block.norm2(attended))).mean(1))


def _convolutional(
    activation: type[nn.Module], *, norm: bool = True, pool: type[nn.Module] = nn.AvgPool2d
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8) if norm else nn.Identity(), activation(), pool(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16) if norm else nn.Identity(), activation(), pool(2),
        nn.Flatten(), nn.Linear(144, CLASSES),
    )  # fmt: skip


def _dense(activation: Callable[[], nn.Module], dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(144, 48), activation(), nn.Dropout(dropout), nn.Linear(48, 32), activation(),
        nn.Linear(32, CLASSES),
    )  # fmt: skip


#: name -> an untrained network
ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, CLASSES)),
    "dense": lambda: _dense(nn.ReLU),
    "dropout": lambda: _dense(nn.GELU, 0.3),
    "relu": lambda: _convolutional(nn.ReLU),
    "maxpool": lambda: _convolutional(nn.ReLU, pool=nn.MaxPool2d),
    "tanh": lambda: _convolutional(nn.Tanh, norm=False),
    "silu": lambda: _convolutional(nn.SiLU),
    "residual": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), Residual(8), nn.AvgPool2d(2), Residual(8), nn.Flatten(),
        nn.Linear(288, CLASSES),
    ),
    "transformer": Patches,
}  # fmt: skip


def fit(
    network: nn.Module, images: Subset, training: str, *, steps: int = 240, seed: int = 0,
    temperature: float = 1.0, targets: Tensor | None = None,
) -> nn.Module:  # fmt: skip
    """Train in place with Adam and return the network in eval mode.

    Args:
        network: [0, 1] images to logits.
        images: of the training split.
        training: `clean`, `smooth_labels`, `noise` (of 2·eps), or `robust` (clean images and those of PGD).
        temperature: divides the logits in the loss.
        targets: probabilities n×K in place of the labels (distillation).
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = images.batch(np.arange(len(images))), images.targets(np.arange(len(images)))
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    attack = PGD(eps=EPS, steps=5, stop_when_fooled=False)
    smoothing = 0.2 if training == "smooth_labels" else 0.0
    network.train()
    for step in range(steps):
        rows = torch.randint(0, len(images), (BATCH,), generator=generator)
        batch, truth = inputs[rows], labels[rows]
        wanted = truth if targets is None else targets[rows]
        if training == "noise":
            batch = batch + 2 * EPS * torch.randn(batch.shape, generator=generator)
        elif training == "robust":
            attacked = attack(network, batch, truth, seeds=torch.arange(BATCH) + step * BATCH)
            batch, wanted = torch.cat([batch, attacked]), torch.cat([wanted, wanted])
        optimiser.zero_grad()
        F.cross_entropy(network(batch) / temperature, wanted, label_smoothing=smoothing).backward()
        optimiser.step()
        schedule.step()
    optimiser.zero_grad()
    return network.eval()
