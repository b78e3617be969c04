"""Who may be one person although no id says so: look-alike patients, and clusters of images without an id.

Both follow each image to its nearest image outside its own patient and take connected components of what is
linked. They are suspicions for a human to look at, never a correction of the data.
"""

import numpy as np
import pandas as pd

from medrobust.data.neighbours import Search

#: Two ids are suspected to be one person if this share of the images of one has its nearest image in the other ...
SHARE = 0.5
#: ... at a distance (1 - correlation) below this share of what is usual between patients in these data.
OUTLIER = 0.25
COLUMNS = ["suspect", "kind", "id", "split", "label", "patient"]


def look_alikes(used: pd.DataFrame, found: Search) -> pd.DataFrame:
    """Patients under two or more ids, one row an image.

    Args:
        used: the images that were searched: `id`, `split`, `label`, `owner` (patient, empty if unknown).
        found: what the search found among them.
    """
    owner = used["owner"].to_numpy()
    near, distance = found.closest.index, 1 - found.closest.similarity
    between = (owner != "") & (near >= 0) & (owner[near] != "")
    if not between.any():
        return pd.DataFrame(columns=COLUMNS)
    names, person = np.unique(owner, return_inverse=True)
    sizes = np.bincount(person)
    linked = between & (distance < OUTLIER * np.median(distance[between]))
    pairs, votes = np.unique(np.stack([person[linked], person[near[linked]]], 1), axis=0, return_counts=True)
    edges = pairs[votes >= np.maximum(2, SHARE * sizes[pairs[:, 0]])]
    group = _components(len(names), edges)
    return _table(used, np.where(owner != "", group[person], -1), "look-alike patients")


def suspected_patients(used: pd.DataFrame, found: Search, same_patient: float) -> pd.DataFrame:
    """Clusters of images of which at least one has no patient id, one row an image.

    Each such image is linked to its nearest image, a test image also to its nearest in train and validation. A
    cluster is often a part of a patient's images only, so there are more clusters than patients.

    Args:
        used: as in `look_alikes`.
        found: what the search found among them.
        same_patient: correlation from which an image and its nearest are suspected to be of one patient.
    """
    unknown = (used["owner"] == "").to_numpy()
    edges = []
    for nearest in (found.closest, found.pool):
        linked = np.flatnonzero(unknown & (nearest.index >= 0) & (nearest.similarity >= same_patient))
        edges.append(np.stack([linked, nearest.index[linked]], 1))
    group = _components(len(used), np.concatenate(edges))
    return _table(used, group, "images without a patient id")


def _components(count: int, edges: np.ndarray) -> np.ndarray:
    """The connected component of each node, -1 for a node without an edge; edges: int, m×2."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    part: np.ndarray = connected_components(graph, directed=False)[1]
    return np.where(np.bincount(part)[part] > 1, part, -1)


def _table(used: pd.DataFrame, group: np.ndarray, kind: str) -> pd.DataFrame:
    """The images of all groups, the largest group first."""
    rows = np.flatnonzero(group >= 0)
    table = used.iloc[rows].assign(kind=kind, patient=used["owner"].iloc[rows], group=group[rows])
    table["size"] = table.groupby("group")["id"].transform("size")
    table = table.sort_values(["size", "group", "id"], ascending=[False, True, True], ignore_index=True)
    letter = kind[0].upper()
    table["suspect"] = [f"{letter}{number + 1}" for number in pd.factorize(table["group"])[0]]
    return table[COLUMNS]
