"""What a model answers on a subset: log-probabilities, clean or under a quick attack."""

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

    The model is put into eval mode and back into the mode it was in.
    """
    training = model.training
    model.eval()
    found: np.ndarray = predict_all([model], subset, attack, model, seed)[0]
    model.train(training)
    return found


def predict_all(
    judges: Sequence[nn.Module], subset: Subset, attack: Attacker | None, victim: nn.Module, seed: int
) -> np.ndarray:
    """What several models, in eval mode, say of the same images: log-probabilities, float64 M×n×K.

    Args:
        judges: M models.
        subset: the images.
        attack: made once on `victim`, for all judges; None = the images as they are.
        victim: the model that is attacked.
        seed: of the attack's random starts.
    """
    device = next(victim.parameters()).device
    parts = []
    for rows in batches(len(subset), BATCH):
        images = subset.batch(rows).to(device)
        if attack is not None:
            seeds = image_seeds(subset.ids[rows], seed).to(device)
            images = attack(victim, images, subset.targets(rows).to(device), seeds=seeds)
        with torch.no_grad():
            parts.append(torch.stack([torch.log_softmax(judge(images).double(), 1).cpu() for judge in judges]))
    return torch.cat(parts, dim=1).numpy()


def batches(count: int, size: int) -> Iterator[np.ndarray]:
    """Positions 0 to `count`, `size` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def predictions_table(subset: Subset, split: str, logprobs: np.ndarray) -> pd.DataFrame:
    """`id`, `split`, `patient`, `label`, `pred` and a `logprob_<k>` a class."""
    table = pd.DataFrame({"id": subset.ids, "split": split, "patient": subset.patients, "label": subset.labels})
    scores = pd.DataFrame(logprobs, columns=[f"logprob_{k}" for k in range(logprobs.shape[1])])
    return pd.concat([table.assign(pred=logprobs.argmax(1)), scores], axis=1)
