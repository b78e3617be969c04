"""Who may be one person although no id says so: look-alike patients, and clusters of images without an id.

Both link images that are too much alike for two persons and take connected components. They are suspicions for a
human to look at, never a correction of the data.
"""

import numpy as np
import pandas as pd

from medrobust.data.audit.neighbours import Search

#: Two ids are suspected to be one person if this share of the images of one has its nearest image in the other ...
SHARE = 0.5
#: ... at a distance (1 - correlation) below this share of what is usual between patients in these data.
OUTLIER = 0.25
COLUMNS = ["suspect", "kind", "id", "split", "label", "patient"]


def look_alikes(used: pd.DataFrame, found: Search) -> np.ndarray:
    """Patients under two or more ids: the number of its suspect for each image, -1 for none.

    Args:
        used: the images that were searched: `owner` (patient, empty if unknown).
        found: what the search found among them.
    """
    owner = used["owner"].to_numpy()
    near, distance = found.closest.index, 1 - found.closest.similarity
    between = (owner != "") & (near >= 0) & (owner[near] != "")
    if not between.any():
        return np.full(len(used), -1)
    names, person = np.unique(owner, return_inverse=True)
    linked = between & (distance < OUTLIER * np.median(distance[between]))
    pairs, votes = np.unique(np.stack([person[linked], person[near[linked]]], 1), axis=0, return_counts=True)
    sizes = np.bincount(person)[pairs[:, 0]]
    group = _components(len(names), pairs[votes >= np.maximum(2, SHARE * sizes)])
    return np.where(owner != "", group[person], -1)


def suspected_patients(used: pd.DataFrame, found: Search) -> np.ndarray:
    """Clusters of alike images of which at least one has no patient id; as `look_alikes`."""
    unknown = (used["owner"] == "").to_numpy()
    edges = np.stack([found.alike.first, found.alike.second], 1)
    return _components(len(used), edges[unknown[edges].any(1)])


def suspect_table(used: pd.DataFrame, group: np.ndarray, kind: str) -> pd.DataFrame:
    """One row an image of a suspect (`COLUMNS`), the largest suspect first."""
    rows = np.flatnonzero(group >= 0)
    table = used.iloc[rows].assign(kind=kind, patient=used["owner"].iloc[rows], group=group[rows])
    table["size"] = table.groupby("group")["id"].transform("size")
    table = table.sort_values(["size", "group", "id"], ascending=[False, True, True], ignore_index=True)
    table["suspect"] = [f"{kind[0].upper()}{number + 1}" for number in pd.factorize(table["group"])[0]]
    return table[COLUMNS]


def _components(count: int, edges: np.ndarray) -> np.ndarray:
    """The connected component of each node, -1 for a node without an edge; edges: int, m×2."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    part: np.ndarray = connected_components(graph, directed=False)[1]
    return np.where(np.bincount(part)[part] > 1, part, -1)
