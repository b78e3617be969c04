"""Standardised features, and checks of what a density can be fitted to."""

from collections.abc import Mapping

import torch
from torch import Tensor

from medrobust.core.errors import UserError


def moments(features: Tensor, where: str) -> dict[str, Tensor]:
    """Indices of the d columns of n×D features that vary (`keep`), their `mean` and their `std` in float64.

    Constant columns (dead units of a ReLU network) are left out: under a density, every deviation from them would
    be infinitely unlikely. The message of the error names `where`.

    Raises:
        UserError: no column varies.
    """
    values = features.double()
    deviation = values.std(0, unbiased=False)
    scale = values.abs().amax(0).clamp_min(1e-12)
    keep = torch.nonzero(deviation > 1e-7 * scale).flatten()
    if not len(keep):
        found = f"all {features.shape[1]} features are constant over {len(features)} images"
        remedy = "The model gives the same features for every image: train it, or use another layer"
        raise UserError(where, found, remedy)
    return {"keep": keep, "mean": values.mean(0)[keep], "std": deviation[keep]}


def standardise(features: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """The varying columns in units of their standard deviation, float64 n×d; `state` has the `moments`."""
    return (features.double()[:, state["keep"]] - state["mean"]) / state["std"]


def check_class_sizes(labels: Tensor, classes: int, least: int, where: str) -> None:
    """Raise a UserError that names a class with fewer than `least` images, and the counts."""
    counts = torch.bincount(labels, minlength=classes)
    short = int(counts.argmin())
    if int(counts[short]) < least:
        found = f"class {short} has {int(counts[short])} training images, {least} are needed"
        raise UserError(where, found, "Set fewer components, merge classes, or add images")
