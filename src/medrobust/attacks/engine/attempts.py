"""The records of an evaluation, one row per image and attempt, and the tables that are computed from them."""

from typing import Any

import numpy as np
import pandas as pd

from medrobust.attacks.tolerance import TOLERANCE

#: Columns of the records and their types. `attack` is an attack of the suite, `natural` (the clean image, radius
#: 0), or `stored` (the adversarial image, scaled to the radius and rounded to the bit depth of the file).
ATTEMPTS = {
    "id": "str", "patient": "str", "label": "int64", "clean_pred": "int64", "attack": "str", "eps": "float64",
    "fooled": "bool", "pred": "int64", "margin": "float64", "distance": "float64", "saturation": "float64",
    "displacement": "float64", "steps": "int64", "gradients": "int64", "queries": "int64",
}  # fmt: skip

#: Columns of the worst case, one row per image and radius.
RECORDS = [
    "id", "patient", "label", "clean_pred", "eps", "adv_pred", "fooled", "fooled_by", "fooled_at",
    "distance", "margin",
]  # fmt: skip


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A table with the columns `ATTEMPTS`."""
    return pd.DataFrame(rows, columns=list(ATTEMPTS)).astype(ATTEMPTS)


def worst_case(attempts: pd.DataFrame, eps: list[float]) -> pd.DataFrame:
    """The per-image worst case over all attempts (table of `ATTEMPTS`), at every radius (rising).

    An adversarial image counts at every radius that is not smaller than its distance, whichever attempt found it.
    An image that is wrong without an attack counts at all radii, as fooled by `natural` at radius 0.

    Returns:
        Table of `RECORDS`, in the order of the attempts' images, one block per radius. For an image that was not
        fooled, `adv_pred`, `distance` and `margin` are those of the attempt inside the ball with the largest
        margin. Distance and margin are NaN if no attempt had this radius, because a larger one failed already.
    """
    inside = attempts[attempts["attack"] != "stored"].reset_index(drop=True)
    limits = np.asarray(eps) * (1 + TOLERANCE) + 1e-7
    inside = inside.assign(first=np.searchsorted(limits, inside["distance"].to_numpy()))
    order = inside.drop_duplicates("id")["id"]
    tables = []
    for number, radius in enumerate(eps):
        fits = inside[inside["first"] <= number]
        # The success with the smallest radius, else the failure with the largest margin.
        ranked = fits.assign(
            survived=~fits["fooled"], rank=np.where(fits["fooled"], fits["first"], -fits["margin"])
        )
        best = (
            ranked.sort_values(["survived", "rank"], kind="stable")
            .drop_duplicates("id")
            .set_index("id")
            .loc[order]
        )
        fooled, natural = best["fooled"].to_numpy(), best["attack"].to_numpy() == "natural"
        tried = set(inside.loc[(inside["eps"] == radius), "id"])
        known = fooled | order.isin(tried).to_numpy()
        fooled_at = np.where(natural, 0.0, np.asarray(eps)[best["first"].to_numpy()])
        columns = {
            "id": order.to_numpy(), "patient": best["patient"], "label": best["label"],
            "clean_pred": best["clean_pred"], "eps": radius, "adv_pred": best["pred"], "fooled": fooled,
            "fooled_by": np.where(fooled, best["attack"], ""), "fooled_at": np.where(fooled, fooled_at, np.nan),
            "distance": np.where(known, best["distance"], np.nan),
            "margin": np.where(known, best["margin"], np.nan),
        }  # fmt: skip
        tables.append(
            pd.DataFrame({name: np.asarray(columns[name]) for name in RECORDS if name != "eps"}).assign(eps=radius)
        )
    return pd.concat(tables, ignore_index=True)[RECORDS]


def stored_accuracy(attempts: pd.DataFrame, eps: list[float]) -> list[float]:
    """Robust accuracy at every radius if attacked images are stored at the file's bit depth.

    An image counts as fooled if it is wrong without an attack, or if its adversarial image is still wrong after it
    was scaled to a radius up to this one and rounded as in a file.
    """
    images = attempts["id"].nunique()
    wrong = attempts[attempts["fooled"] & attempts["attack"].isin(["natural", "stored"])]
    first = wrong.groupby("id")["eps"].min().to_numpy()
    return [float(1 - (first <= radius * (1 + TOLERANCE)).sum() / images) for radius in eps]
