"""What is explained: a model, the images that it answers, and the evaluation that attacked them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.data.store import Subset
from medrobust.explain.attacked import attacked_images
from medrobust.explain.maps import choose_layer, explain
from medrobust.models.feature_maps import MapLayer

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and one suite's evaluation of it.

    Attributes:
        model: in eval mode, on its device.
        test: the images that were attacked.
        train: what fitted attacks are fitted on.
        suite: as `attacks.suite.resolve_suite` gives it.
        predictions: of the test images: `id`, `label`, `pred`, a `logprob_<k>` a class.
        attempts: the evaluation's records, a table of `attempts.ATTEMPTS`.
        cells: a side that Grad-CAM's layer has at least.
        seed: of the run.
    """

    model: nn.Module
    test: Subset
    train: Subset
    suite: dict[str, Any]
    predictions: pd.DataFrame
    attempts: pd.DataFrame
    cells: int
    seed: int

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @cached_property
    def layer(self) -> tuple[MapLayer, tuple[int, int]] | None:
        """What Grad-CAM looks at, and its grid; None of a model without maps."""
        return choose_layer(self.model, self.test.batch([0]).to(self.device), self.cells)

    def probabilities(self, images: Tensor) -> np.ndarray:
        """What the model says of images (n×C×H×W): float32 n×K."""
        with torch.no_grad():
            parts = [self.model(batch.to(self.device)).softmax(1).cpu() for batch in images.split(BATCH)]
        return torch.cat(parts).numpy()

    def maps(self, images: Tensor, classes: np.ndarray) -> dict[str, np.ndarray]:
        """Maps by kind, n×H×W, each of what speaks for its image's class (int n)."""
        layer = self.layer[0] if self.layer else None
        return explain(self.model, images.to(self.device), torch.from_numpy(classes), layer)

    def attacked(self, some: Subset, eps: float) -> Tensor:
        """The suite's attack on some test images, n×C×H×W on the CPU."""
        return attacked_images(self.model, some, self.suite, self.attempts, eps, seed=self.seed, train=self.train)
