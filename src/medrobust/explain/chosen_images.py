"""Which images get pictures, chosen by rules, and which attack was strongest on an image."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medrobust.attacks.tolerance import TOLERANCE

RULES = {
    "right": "the right prediction with the highest confidence",
    "wrong": "the wrong prediction with the highest confidence",
    "fooled": "the image fooled at the smallest radius",
}


@dataclass(frozen=True)
class ChosenImage:
    """An image to draw: the rule that chose it, its 1-based rank under that rule, the radius of its attack."""

    rule: str
    number: int
    id: str
    eps: float


def choose_images(predictions: pd.DataFrame, worst: pd.DataFrame, count: int, eps: float) -> list[ChosenImage]:
    """At most `count` images per rule; ties go to the id that comes first in the alphabet.

    Args:
        predictions: of test images: `id`, `label`, `pred` and one `logprob_<k>` per class.
        worst: `attempts.worst_case` of a suite's records: `id`, `fooled`, `fooled_by`, `fooled_at`.
        eps: radius of the attack for the first two rules; the third uses the smallest radius that fools the image.
    """
    logprobs = predictions[[name for name in predictions if str(name).startswith("logprob_")]]
    table = predictions[["id"]].assign(sure=logprobs.max(axis=1))
    right = (predictions["label"] == predictions["pred"]).to_numpy()
    chosen = []
    for rule, rows in (("right", right), ("wrong", ~right)):
        first = table[rows].sort_values(["sure", "id"], ascending=[False, True])[:count]
        chosen += [ChosenImage(rule, number, name, eps) for number, name in enumerate(first["id"], 1)]
    fooled = worst[worst["fooled"].to_numpy(dtype=bool) & (worst["fooled_by"] != "natural").to_numpy()]
    first = fooled.sort_values(["fooled_at", "id"]).drop_duplicates("id")[:count]
    pairs = enumerate(zip(first["id"], first["fooled_at"], strict=True), 1)
    return [*chosen, *(ChosenImage("fooled", number, name, float(at)) for number, (name, at) in pairs)]


def strongest_attacks(attempts: pd.DataFrame, ids: np.ndarray, eps: float) -> dict[str, str]:
    """Image id -> the suite's strongest attack on the image.

    An attack that succeeded within the radius comes first, then the one with the largest margin at any radius (an
    attack that fails at a large radius is not tried at smaller ones). Images without attempts are left out.
    `attempts` is a table of `attacks.engine.attempts.ATTEMPTS`.
    """
    tried = attempts[~attempts["attack"].isin(["natural", "stored"]) & attempts["id"].isin(ids)]
    hit = tried["fooled"] & (tried["eps"] <= eps * (1 + TOLERANCE))
    ranked = tried.assign(hit=hit).sort_values(["hit", "margin"], ascending=False, kind="stable")
    return dict(ranked.drop_duplicates("id")[["id", "attack"]].to_numpy().tolist())
