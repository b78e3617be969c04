"""Which images are pictured: by rule, never by hand."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medrobust.attacks.base import TOLERANCE

#: Rule -> what it says of the images that it chooses.
RULES = {
    "right": "the right answer that the model is most sure of",
    "wrong": "the wrong answer that the model is most sure of",
    "fooled": "the image that the smallest attack fools",
}


@dataclass(frozen=True)
class Choice:
    """An image to picture: which rule chose it as its how-manieth (from 1), and the radius of its attack."""

    rule: str
    number: int
    id: str
    eps: float


def choose(predictions: pd.DataFrame, worst: pd.DataFrame, count: int, eps: float) -> list[Choice]:
    """At most `count` images a rule; ties go to the id that comes first in the alphabet.

    Args:
        predictions: of test images: `id`, `label`, `pred` and a `logprob_<k>` a class.
        worst: `attempts.worst_case` of a suite's records: `id`, `fooled`, `fooled_by`, `fooled_at`.
        count: images a rule.
        eps: radius of the attack on images of the first two rules; that of the third is the smallest that fools.
    """
    logprobs = predictions[[name for name in predictions if str(name).startswith("logprob_")]]
    table = predictions[["id"]].assign(sure=logprobs.max(axis=1))
    right = (predictions["label"] == predictions["pred"]).to_numpy()
    chosen = []
    for rule, rows in (("right", right), ("wrong", ~right)):
        first = table[rows].sort_values(["sure", "id"], ascending=[False, True])[:count]
        chosen += [Choice(rule, number, name, eps) for number, name in enumerate(first["id"], 1)]
    fooled = worst[worst["fooled"].to_numpy(dtype=bool) & (worst["fooled_by"] != "natural").to_numpy()]
    first = fooled.sort_values(["fooled_at", "id"]).drop_duplicates("id")[:count]
    pairs = zip(first["id"], first["fooled_at"], strict=True)
    return [*chosen, *(Choice("fooled", number, name, float(at)) for number, (name, at) in enumerate(pairs, 1))]


def strongest(attempts: pd.DataFrame, ids: np.ndarray, eps: float) -> dict[str, tuple[str, bool]]:
    """Image -> the attack of the suite that did best against it, and whether it fooled it within the radius.

    An attack that fooled it there, else the one with the largest margin at any radius (what fails at a large
    radius is not tried at smaller ones). Images that none was tried on are left out.

    Args:
        attempts: table of `attempts.ATTEMPTS`.
        ids: text, n; the images asked for.
        eps: the radius.
    """
    tried = attempts[~attempts["attack"].isin(["natural", "stored"]) & attempts["id"].isin(ids)]
    hit = tried["fooled"] & (tried["eps"] <= eps * (1 + TOLERANCE))
    ranked = tried.assign(hit=hit).sort_values(["hit", "margin"], ascending=False, kind="stable")
    best = ranked.drop_duplicates("id")
    return {name: (attack, bool(hit)) for name, attack, hit in best[["id", "attack", "hit"]].to_numpy()}
