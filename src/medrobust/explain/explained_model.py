"""A model with the images and the evaluation that its explanations are about."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.data.store import Subset
from medrobust.explain.attacked_images import BATCH, attacked_images
from medrobust.explain.maps import choose_layer, explanation_maps
from medrobust.models.feature_maps import MapLayer


@dataclass(frozen=True, kw_only=True)
class ExplainedModel:
    """A model (in eval mode, on its device) and its evaluation under one suite.

    Attributes:
        train: images that fitted attacks are fitted on.
        suite: as `attacks.engine.suite.resolve_suite` returns it.
        predictions: of the test images: `id`, `label`, `pred`, one `logprob_<k>` per class.
        attempts: the evaluation's records, a table of `attacks.engine.attempts.ATTEMPTS`.
        cells: least number of cells per side of Grad-CAM's layer.
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
        return next(self.model.parameters()).device

    @cached_property
    def layer(self) -> tuple[MapLayer, tuple[int, int]] | None:
        """The layer of Grad-CAM, and its grid; None for a model without feature maps."""
        return choose_layer(self.model, self.test.batch([0]).to(self.device), self.cells)

    def probabilities(self, images: Tensor) -> np.ndarray:
        """Predicted probabilities of images (n×C×H×W), float32 n×K."""
        with torch.no_grad():
            parts = [self.model(batch.to(self.device)).softmax(1).cpu() for batch in images.split(BATCH)]
        return torch.cat(parts).numpy()

    def maps(self, images: Tensor, classes: np.ndarray) -> dict[str, np.ndarray]:
        """Maps by kind, n×H×W, each for the given class of its image (int n)."""
        layer = self.layer[0] if self.layer else None
        return explanation_maps(self.model, images.to(self.device), torch.from_numpy(classes), layer)

    def attacked(self, some: Subset, eps: float) -> Tensor:
        """Some test images under the suite's attack, n×C×H×W, on the CPU."""
        return attacked_images(self.model, some, self.suite, self.attempts, eps, seed=self.seed, train=self.train)
