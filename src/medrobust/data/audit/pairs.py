"""Tables of image pairs: copies that matter for a split, and two images side by side in one row."""

from typing import Any

import numpy as np
import pandas as pd

from medrobust.data.audit.neighbours import SearchResult

#: Columns of both images in a table of pairs; those of the second image have the prefix `other_`.
IMAGE_COLUMNS = ["id", "split", "label", "owner", "row"]


def copy_pairs(images: pd.DataFrame, result: SearchResult) -> pd.DataFrame:
    """Pairs of copies across splits, with two labels, or of two known patients; worst first.

    Returns:
        `kind` (byte-identical | near copy), `similarity` (correlation), and `IMAGE_COLUMNS` of both images.
    """
    hashes = images["sha256"].to_numpy()
    # One pair per further file with the same bytes, with the first of them: test before val before train.
    ranked = images[images["sha256"].duplicated(keep=False)].sort_values(["split", "id"], key=_split_rank)
    first_file = ranked.index.to_series().groupby(ranked["sha256"]).transform("first")
    first_file = first_file[first_file != first_file.index]
    exact = side_by_side(images, first_file.to_numpy(), first_file.index.to_numpy(), 1.0)
    near = result.near_duplicates
    different = hashes[near.first] != hashes[near.second]
    first, second = near.first[different], near.second[different]
    rank = _split_rank(images["split"]).to_numpy()
    swap = rank[first] > rank[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    similar = side_by_side(images, first, second, near.similarity[different])
    pairs = pd.concat([exact.assign(kind="byte-identical"), similar.assign(kind="near copy")], ignore_index=True)
    crossing = pairs["split"] != pairs["other_split"]
    conflict = pairs["label"] != pairs["other_label"]
    strangers = (pairs["owner"] != pairs["other_owner"]) & (pairs["owner"] != "") & (pairs["other_owner"] != "")
    pairs["grade"] = np.select([crossing & (pairs["split"] == "test"), conflict, crossing], [0, 1, 2], 3)
    pairs = pairs[crossing | conflict | strangers]
    order = ["grade", "kind", "similarity", "id", "other_id"]
    ascending = [True, True, False, True, True]
    return pairs.sort_values(order, ascending=ascending, ignore_index=True).drop(columns="grade")


def side_by_side(images: pd.DataFrame, first: np.ndarray, second: np.ndarray, similarity: Any) -> pd.DataFrame:
    """One row per pair: `IMAGE_COLUMNS` of both images, and their correlation."""
    left = images[IMAGE_COLUMNS].iloc[first].reset_index(drop=True)
    right = images[IMAGE_COLUMNS].iloc[second].reset_index(drop=True).add_prefix("other_")
    return pd.concat([left, right], axis=1).assign(similarity=similarity)


def _split_rank(column: pd.Series) -> pd.Series:
    """Map splits to their order within a pair, test first; other columns stay as they are (a sort key)."""
    return column.map({"test": 0, "val": 1, "train": 2}) if column.name == "split" else column
