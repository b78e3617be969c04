"""Features of a whole subset, clean or attacked, and the attacked images themselves made again.

Attack records hold no images, so detection makes them anew from the same suite and the same seeds.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from medrobust.attacks.engine.evaluate import build_attack
from medrobust.core.runtime import progress
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.detection.features import Extractor, Features, concatenate

BATCH = 64
#: (model, images, labels, seeds) -> other images
Change = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


class SuiteAttack:
    """Each image by the first attack of a resolved suite that fools the model; by its last if none does.

    Args:
        suite: as `attacks.suite.resolve_suite` gives it.
        eps: radius, in the suite's norm.
        train: training images, for attacks that are fitted on them.
    """

    def __init__(self, suite: dict[str, Any], eps: float, train: Subset | None = None) -> None:
        self.attacks = [build_attack(entry, eps, suite["norm"]) for entry in suite["attacks"]]
        if train is not None:
            self.attacks = [attack.with_training(train) for attack in self.attacks]

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        """Attacked images, n×C×H×W."""
        result = images.clone()
        left = torch.arange(len(images), device=images.device)
        for attack in self.attacks:
            result[left] = attack(model, images[left], labels[left], seeds=seeds[left])
            with torch.no_grad():
                left = left[model(result[left]).argmax(1) == labels[left]]
            if not len(left):
                break
        return result


def changed_images(model: nn.Module, subset: Subset, change: Change, seed: int, desc: str) -> Tensor:
    """Every image of a subset after `change`, on the CPU."""
    device, seeds = next(model.parameters()).device, image_seeds(subset.ids, seed)
    parts = []
    for start in progress(range(0, len(subset), BATCH), desc, unit="batches"):
        rows = range(start, min(start + BATCH, len(subset)))
        images, labels = subset.batch(rows).to(device), subset.targets(rows).to(device)
        parts.append(change(model, images, labels, seeds[start : start + BATCH].to(device)).cpu())
    return torch.cat(parts)


def all_features(
    model: nn.Module, extractors: Iterable[Extractor], images: Tensor | Subset, seeds: Tensor
) -> dict[Extractor, Features]:
    """Features of many images under each extractor, without gradients, on the CPU.

    Args:
        model: in eval mode.
        extractors: equal ones share a pass.
        images: n×C×H×W in [0, 1], or the subset that has them.
        seeds: int64, n.
    """
    device = next(model.parameters()).device
    found: dict[Extractor, list[Features]] = {extractor: [] for extractor in extractors}
    for start in range(0, len(seeds), BATCH):
        rows = range(start, min(start + BATCH, len(seeds)))
        batch = (images.batch(rows) if isinstance(images, Subset) else images[rows.start : rows.stop]).to(device)
        with torch.no_grad():
            for extractor, parts in found.items():
                features = extractor(model, batch, seeds[rows.start : rows.stop].to(device))
                parts.append(features.map(lambda part: part.cpu()))
    return {extractor: concatenate(parts) for extractor, parts in found.items()}
