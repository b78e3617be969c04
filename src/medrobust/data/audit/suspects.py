"""Suspected patients: ids that look like one person, and clusters of images without an id.

Both link images that are too similar for two persons and take connected components. A suspect needs visual
inspection; the data are never changed.
"""

import numpy as np
import pandas as pd

from medrobust.data.audit.neighbours import SearchResult

#: Two ids may be one person if this share of the images of one id have their nearest neighbour in the other ...
MIN_SHARE = 0.5
#: ... at a distance (1 - correlation) below this share of the median distance between patients in these data.
MAX_RELATIVE_DISTANCE = 0.25


def look_alikes(images: pd.DataFrame, result: SearchResult) -> np.ndarray:
    """Find patients that may have two or more ids; `owner` of an image is its patient, empty if unknown.

    Returns:
        int, n: number of the suspect that each image belongs to, -1 for none.
    """
    owner = images["owner"].to_numpy()
    near, distance = result.other_patients.index, 1 - result.other_patients.similarity
    between = (owner != "") & (near >= 0) & (owner[near] != "")
    if not between.any():
        return np.full(len(images), -1)
    names, person = np.unique(owner, return_inverse=True)
    linked = between & (distance < MAX_RELATIVE_DISTANCE * np.median(distance[between]))
    pairs, links = np.unique(np.stack([person[linked], person[near[linked]]], 1), axis=0, return_counts=True)
    sizes = np.bincount(person)[pairs[:, 0]]
    group = _components(len(names), pairs[links >= np.maximum(2, MIN_SHARE * sizes)])
    return np.where(owner != "", group[person], -1)


def suspected_patients(images: pd.DataFrame, result: SearchResult) -> np.ndarray:
    """Find clusters of similar images in which at least one has no patient id; returns as `look_alikes` does."""
    unknown = (images["owner"] == "").to_numpy()
    edges = np.stack([result.same_patient.first, result.same_patient.second], 1)
    return _components(len(images), edges[unknown[edges].any(1)])


def suspect_table(images: pd.DataFrame, group: np.ndarray, kind: str) -> pd.DataFrame:
    """One row per image of a suspect, the largest suspect first."""
    rows = np.flatnonzero(group >= 0)
    table = images.iloc[rows].assign(kind=kind, patient=images["owner"].iloc[rows], group=group[rows])
    table["size"] = table.groupby("group")["id"].transform("size")
    table = table.sort_values(["size", "group", "id"], ascending=[False, True, True], ignore_index=True)
    table["suspect"] = [f"{kind[0].upper()}{number + 1}" for number in pd.factorize(table["group"])[0]]
    return table[["suspect", "kind", "id", "split", "label", "patient"]]


def _components(count: int, edges: np.ndarray) -> np.ndarray:
    """Connected component of each node, -1 for a node without an edge; `edges` is int, m×2."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    part: np.ndarray = connected_components(graph, directed=False)[1]
    return np.where(np.bincount(part)[part] > 1, part, -1)
