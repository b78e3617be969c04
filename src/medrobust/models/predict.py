"""Log-probabilities that models predict for the images of a subset, clean or attacked."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset

#: An attack: (model, images, labels, seeds=...) -> attacked images.
Attacker = Callable[..., Tensor]
BATCH = 128


def log_probabilities(
    model: nn.Module, subset: Subset, attack: Attacker | None = None, seed: int = 0
) -> np.ndarray:
    """Log-probabilities, float64 n×K, of a subset's images, attacked first if an attack is given.

    The model runs in eval mode and is then put back into the mode it was in.
    """
    training = model.training
    model.eval()
    logprobs: np.ndarray = predict_all([model], subset, attack, model, seed)[0]
    model.train(training)
    return logprobs


def predict_all(
    models: Sequence[nn.Module], subset: Subset, attack: Attacker | None, attacked_model: nn.Module, seed: int
) -> np.ndarray:
    """Log-probabilities, float64 M×n×K, of several models in eval mode on the same images.

    `attack` runs on `attacked_model`, and all models get its images; None = clean images.
    """
    device = next(attacked_model.parameters()).device
    parts = []
    for rows in batches(len(subset), BATCH):
        images = subset.batch(rows).to(device)
        if attack is not None:
            seeds = image_seeds(subset.ids[rows], seed).to(device)
            images = attack(attacked_model, images, subset.targets(rows).to(device), seeds=seeds)
        parts.append(stacked_log_probabilities(models, images))
    return torch.cat(parts, dim=1).numpy()


def stacked_log_probabilities(models: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Log-probabilities, float64 M×n×K on the CPU, of M models on a batch of images n×C×H×W."""
    with torch.no_grad():
        return torch.stack([model(images).double().log_softmax(1).cpu() for model in models])


def batches(count: int, size: int) -> Iterator[np.ndarray]:
    """Positions from 0 to `count` - 1, `size` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def predictions_table(subset: Subset, split: str, logprobs: np.ndarray) -> pd.DataFrame:
    """Table of `id`, `split`, `patient`, `label`, `pred` and one `logprob_<k>` per class; one row per image."""
    table = pd.DataFrame({"id": subset.ids, "split": split, "patient": subset.patients, "label": subset.labels})
    scores = pd.DataFrame(logprobs, columns=[f"logprob_{k}" for k in range(logprobs.shape[1])])
    return pd.concat([table.assign(pred=logprobs.argmax(1)), scores], axis=1)
