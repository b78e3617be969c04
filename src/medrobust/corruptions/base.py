"""The contract of a corruption: five severities, and random parameters that depend on an image's seed alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.base import check_images
from medrobust.core.errors import UserError
from medrobust.core.seeds import signs

SEVERITIES = (1, 2, 3, 4, 5)


class Corruption(ABC):
    """An error of acquisition. A subclass defines its strengths, how parameters are drawn, and what they do.

    Attributes:
        strengths: one per severity, from weak to strong; `unit` says what they measure.
        random: whether `draw` uses the seeds. If not, a second draw gives the same image.
        per_series: whether all images of a series have the same parameters. Noise differs between them.
        apply: method that corrupts a batch n×C×H×W with the parameters of `draw`, passed by name. Its result may
            leave [0, 1].
    """

    strengths: ClassVar[tuple[float, float, float, float, float]]
    unit: ClassVar[str]
    random: ClassVar[bool] = True
    per_series: ClassVar[bool] = True
    apply: Callable[..., Tensor]

    @abstractmethod
    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        """Draw the parameters of `apply`, n×..., for a batch; row i depends on `seeds[i]` and `strength` alone."""

    def __call__(self, images: Tensor, severity: int, seeds: Tensor) -> Tensor:
        """Corrupt a batch.

        Args:
            images: float32, n×C×H×W in [0, 1].
            severity: 1 to 5.
            seeds: int64, n. The same seed draws the same direction at every severity.

        Returns:
            Corrupted images, clipped to [0, 1].

        Raises:
            UserError: images outside [0, 1], or a severity that does not exist.
        """
        check_images(images)
        if severity not in SEVERITIES:
            raise UserError("severity", f"got {severity!r}", "Use a whole number from 1 to 5")
        return self.apply(images, **self.draw(images, self.strengths[severity - 1], seeds)).clamp(0, 1)


class SignedCorruption(Corruption):
    """A corruption with one parameter of either sign, whose size is the strength."""

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        return {"amount": strength * signs(seeds, 0, ())}


class FixedCorruption(Corruption):
    """A corruption without a random parameter."""

    random = False

    def draw(self, images: Tensor, strength: float, seeds: Tensor) -> dict[str, Tensor]:
        return {"amount": torch.tensor(strength)}
