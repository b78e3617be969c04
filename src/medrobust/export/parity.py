"""Compare an exported model with its original on clean and on attacked images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.base import frozen
from medrobust.attacks.engine.all_steps import attacks_with_all_steps, strongest
from medrobust.core.errors import UserError
from medrobust.core.runtime import progress
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.models.predict import batches

#: Largest difference of a probability that an export may have.
TOLERANCE = 1e-3
BATCH = 32


@dataclass(frozen=True)
class Comparison:
    """Original and exported model on the same n images (or patients).

    `same` counts equal answers, `largest` is the largest difference of a probability; `accuracy` is that of the
    original, `exported_accuracy` that of the exported model. `attacked` images were made on the original.
    """

    images: str
    attacked: bool
    n: int
    same: int
    largest: float
    accuracy: float
    exported_accuracy: float


def compare(
    model: nn.Module, exported: Callable[[Tensor], np.ndarray], subsets: Sequence[Subset],
    suites: Sequence[dict[str, Any]], *, seed: int, train: Subset | None = None,
) -> list[Comparison]:  # fmt: skip
    """Compare on clean images, then on those of each suite at each of its radii.

    An attacked image is the strongest version of all attacks of the suite, each with all its steps.

    Args:
        model: the original, in eval mode on the CPU.
        exported: images n×C×H×W in [0, 1] to probabilities n×K.
        subsets: the images; patients with different numbers of images are in different subsets.
        suites: resolved suites.
        seed: of the attacks.
        train: images for attacks that are fitted.
    """
    cells: list[tuple[str, dict[str, Any] | None, float]] = [("clean", None, 0.0)]
    for suite in suites:
        cells += [(f"{suite['name']}, ε {eps:g} ({suite['norm']})", suite, eps) for eps in suite["eps"]]
    found = []
    with frozen(model):
        for name, attacker, eps in progress(cells, "compare", unit="sets"):
            attacks = attacks_with_all_steps(attacker, eps, train) if attacker else []
            rows = [
                _probabilities(model, exported, subset, rows, attacks, seed)
                for subset in subsets
                for rows in batches(len(subset), BATCH)
            ]
            original, other, labels = (np.concatenate(part) for part in zip(*rows, strict=True))
            found.append(_comparison(name, attacker is not None, original, other, labels))
    return found


def check_parity(comparisons: Sequence[Comparison]) -> None:
    """Raise a UserError if a probability differs by more than `TOLERANCE`, or is NaN."""
    worst = max(comparisons, key=lambda each: np.inf if np.isnan(each.largest) else each.largest)
    if not worst.largest <= TOLERANCE:
        found = f"a probability differs from the original by {worst.largest:.3g} on {worst.images} images"
        remedy = "Use other versions of torch and onnxruntime, or the checkpoint with medrobust.load"
        raise UserError("export to ONNX", f"{found} (limit {TOLERANCE:g})", remedy)


def _probabilities(
    model: nn.Module, exported: Callable[[Tensor], np.ndarray], subset: Subset, rows: np.ndarray,
    attacks: list[Any], seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Probabilities of both models, each n×K, and labels n, of some rows of a subset, attacked on the original."""
    images, labels = subset.batch(rows), subset.targets(rows)
    if attacks:
        ready = [attack.for_images(subset, rows.tolist()) for attack in attacks]
        images = strongest(model, ready, images, labels, image_seeds(subset.ids[rows], seed))
    with torch.no_grad():
        original = model(images).softmax(1).numpy()
    return original, exported(images), labels.numpy()


def _comparison(
    name: str, attacked: bool, original: np.ndarray, other: np.ndarray, labels: np.ndarray
) -> Comparison:
    answers, others = original.argmax(1), other.argmax(1)
    return Comparison(
        images=name, attacked=attacked, n=len(labels), same=int((answers == others).sum()),
        largest=float(np.abs(original - other).max()), accuracy=float((answers == labels).mean()),
        exported_accuracy=float((others == labels).mean()),
    )  # fmt: skip
