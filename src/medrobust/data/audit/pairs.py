"""Copies in a split: images with equal pixels, and tables of image pairs, two images side by side in one row."""

from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from medrobust.data.audit.neighbours import MAX_PAIRS, SearchResult, chunks

#: Columns of both images in a table of pairs; those of the second image have the prefix `other_`.
IMAGE_COLUMNS = ["id", "split", "label", "owner", "row"]
#: Order of splits within a pair.
RANK = {"test": 0, "val": 1, "train": 2}


def equal_pixels(images: np.ndarray) -> np.ndarray:
    """Group images by their stored pixels, whatever the format of their files was.

    Args:
        images: uint8, N×H×W or N×H×W×C, in memory or memory-mapped.

    Returns:
        int, N: number of the group of each image; images of one group are equal.
    """
    groups: np.ndarray = pd.factorize(pd.Series(pixel_digests(images)))[0]
    return groups


def pixel_digests(images: np.ndarray) -> list[bytes]:
    """A hash of the stored pixels of each image; arguments as in `equal_pixels`."""
    return [blake2b(image.tobytes(), digest_size=16).digest() for _, part in chunks(images) for image in part]


def copy_pairs(images: pd.DataFrame, result: SearchResult) -> pd.DataFrame:
    """All pairs of copies across splits, with two labels, or of two known patients; worst first.

    At most about `MAX_PAIRS` pairs of exact copies, and as many of near copies, are listed.

    Args:
        images: the images in use, with `IMAGE_COLUMNS`, `sha256` and `copy`, the group of `equal_pixels`.
        result: the search among them, for near copies.

    Returns:
        `kind` (byte-identical | equal pixels | near copy), `similarity` (correlation), and `IMAGE_COLUMNS` of both
        images.
    """
    copy, near = images["copy"].to_numpy(), result.near_duplicates
    exact_first, exact_second = _exact_pairs(images)
    different = copy[near.first] != copy[near.second]
    first = np.concatenate([exact_first, near.first[different]])
    second = np.concatenate([exact_second, near.second[different]])
    similarity = np.concatenate([np.ones(len(exact_first)), near.similarity[different]])
    split, label, owner, file = (images[name].to_numpy() for name in ("split", "label", "owner", "sha256"))
    rank = images["split"].map(RANK).to_numpy()
    swap = rank[first] > rank[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    crossing, conflict = split[first] != split[second], label[first] != label[second]
    strangers = (owner[first] != owner[second]) & (owner[first] != "") & (owner[second] != "")
    exact, same_file = np.arange(len(first)) < len(exact_first), file[first] == file[second]
    pairs = side_by_side(images, first, second, similarity).assign(
        kind=np.select([exact & same_file, exact], ["byte-identical", "equal pixels"], "near copy"),
        grade=np.select([crossing & (split[first] == "test"), conflict, crossing], [0, 1, 2], 3),
    )[crossing | conflict | strangers]
    order = ["grade", "kind", "similarity", "id", "other_id"]
    ascending = [True, True, False, True, True]
    return pairs.sort_values(order, ascending=ascending, ignore_index=True).drop(columns="grade")


def _exact_pairs(images: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of images in a group of equal pixels, those of test images first, as positions in `images`."""
    copies = images[images["copy"].duplicated(keep=False)]
    copies = copies.assign(rank=copies["split"].map(RANK)).sort_values(["rank", "id"])
    group = pd.factorize(copies["copy"])[0]  # in order of the first member: groups with a test image come first
    members = copies.index.to_numpy()[np.argsort(group, kind="stable")]
    parts, left = [np.empty((2, 0), int)], MAX_PAIRS
    for start, end in pairwise([0, *np.cumsum(np.bincount(group))]):
        part = members[start:end]
        rows = min(len(part), left // len(part) + 1)  # images of which all pairs are listed
        first, second = np.triu_indices(rows, 1, len(part))
        parts.append(np.stack([part[first], part[second]]))
        left -= len(first)
        if left <= 0:
            break
    first, second = np.concatenate(parts, axis=1)
    return first, second


def side_by_side(images: pd.DataFrame, first: np.ndarray, second: np.ndarray, similarity: Any) -> pd.DataFrame:
    """One row per pair: `IMAGE_COLUMNS` of both images, and their correlation."""
    left = images[IMAGE_COLUMNS].iloc[first].reset_index(drop=True)
    right = images[IMAGE_COLUMNS].iloc[second].reset_index(drop=True).add_prefix("other_")
    return pd.concat([left, right], axis=1).assign(similarity=similarity)
