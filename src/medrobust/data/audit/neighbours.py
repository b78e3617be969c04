"""Exact nearest neighbours and near duplicates among small pictures, by blocks of matrix products.

Each image is averaged down to a small picture, centred and scaled to length 1, so that the correlation of two
images is a dot product and half of the matrix of all pairs is one product after another. Everything that is
asked of a pair is asked while its block is in memory: N² numbers are computed, and none of them kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from mmap import mmap

import numpy as np

#: Side of the pictures that are compared, and how many are compared with as many at a time. A block of 4 MiB
#: stays in the processor's cache; larger ones take half as long again.
SIDE, BLOCK = 24, 1024
#: Pairs above the threshold that are kept; beyond this number the least similar are dropped.
MOST_PAIRS = 1_000_000


def pictures(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Float32, n×SIDE²: the images averaged down, centred and scaled to length 1; a blank image is all zero.

    Args:
        images: uint8, N×H×W or N×H×W×C, in memory or memory-mapped.
        rows: int, n; which of them, in which order.
    """
    size = images.shape[1]
    edges = np.linspace(0, size, min(SIDE, size) + 1).astype(int)[:-1]
    counts = np.diff([*edges, size]).astype(np.float32)
    weight = 1 / (counts[:, None] * counts[None, :])
    out = np.empty((len(rows), len(edges) ** 2), dtype=np.float32)
    place = np.full(len(images), -1)
    place[rows] = np.arange(len(rows))
    for start, block in _stretches(images):
        where = place[start : start + len(block)]
        part: np.ndarray = block[where >= 0].astype(np.float32)
        part = part.mean(3) if part.ndim == 4 else part
        part = np.add.reduceat(np.add.reduceat(part, edges, axis=1), edges, axis=2) * weight
        flat = part.reshape(len(part), -1)
        flat -= flat.mean(1, keepdims=True)
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        out[where[where >= 0]] = np.where(length > 1e-3, flat / np.maximum(length, 1e-3), 0)
    return out


def _stretches(images: np.ndarray, most: int = 1024) -> Iterator[tuple[int, np.ndarray]]:
    """The images in storage order, some at a time; pages of a mapped file are given back after each."""
    for start in range(0, len(images), most):
        if isinstance(images, np.memmap) and isinstance(images.base, mmap):  # not a part of a mapped array
            shape = (min(most, len(images) - start), *images.shape[1:])
            offset = images.offset + start * images.strides[0]
            yield start, np.memmap(str(images.filename), images.dtype, "r", offset, shape)
        else:
            yield start, images[start : start + most]


@dataclass(frozen=True)
class Nearest:
    """The nearest allowed image of each image: its position (-1: none) and the correlation with it."""

    index: np.ndarray
    similarity: np.ndarray

    @classmethod
    def none(cls, count: int) -> "Nearest":
        """Nobody has a neighbour yet."""
        return cls(np.full(count, -1), np.full(count, -np.inf, dtype=np.float32))

    def update(self, rows: slice, columns: slice, block: np.ndarray) -> None:
        """Take in the correlations of some images (rows) with some others (columns)."""
        top = block.max(1)
        better = np.flatnonzero(top > self.similarity[rows])
        if len(better):  # ever rarer, so that the position is seldom looked up
            self.similarity[rows.start + better] = top[better]
            self.index[rows.start + better] = columns.start + block[better].argmax(1)

    def unsorted(self, order: np.ndarray) -> "Nearest":
        """The same by the positions that `order` lists."""
        found = Nearest.none(len(order))
        found.index[order] = np.where(self.index >= 0, order[self.index], -1)
        found.similarity[order] = self.similarity
        return found


@dataclass(frozen=True)
class Pairs:
    """Pairs of images at or above a correlation, each once.

    Attributes:
        count: how many there are.
        first, second, similarity: the most similar of them, at most `MOST_PAIRS`, the most similar first.
    """

    count: int
    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


class _Collector:
    """Gathers pairs block by block."""

    def __init__(self, threshold: float) -> None:
        self.threshold, self.floor, self.count = threshold, threshold, 0
        self.parts = [(np.empty(0, int), np.empty(0, int), np.empty(0, np.float32))]

    def update(self, rows: slice, columns: slice, block: np.ndarray) -> None:
        """Take in a block; of one on the diagonal only what lies above the diagonal."""
        candidates = np.flatnonzero(block.max(1) >= self.threshold)
        if not len(candidates):
            return
        part = block[candidates]
        if rows == columns:
            part[np.arange(block.shape[1]) <= candidates[:, None]] = -np.inf
        self.count += int(np.count_nonzero(part >= self.threshold))
        first, second = np.nonzero(part >= self.floor)
        self.parts.append((rows.start + candidates[first], columns.start + second, part[first, second]))
        if sum(len(part[0]) for part in self.parts) > 2 * MOST_PAIRS:
            self.parts = [self._best()]
            self.floor = float(self.parts[0][2][-1])

    def _best(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first, second, similarity = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        order = np.lexsort((second, first, -similarity))[:MOST_PAIRS]
        return first[order], second[order], similarity[order]

    def pairs(self, order: np.ndarray) -> Pairs:
        """What was gathered, by the positions that `order` lists."""
        first, second, similarity = self._best()
        return Pairs(self.count, order[first], order[second], similarity)


@dataclass(frozen=True)
class Search:
    """What one pass over all pairs found; positions are those of the vectors that were given.

    Attributes:
        pool: of each test image, the nearest image of train and validation.
        pool_others: the same among the images of known other patients (all, if its own is unknown).
        closest: of each image, the nearest of all images that are not known to be of the same patient.
        near: near duplicates.
        alike: pairs with an image of an unknown patient that may be of one patient. Some pairs of images of known
            patients are among them.
    """

    pool: Nearest
    pool_others: Nearest
    closest: Nearest
    near: Pairs
    alike: Pairs


def search(
    vectors: np.ndarray,
    patients: np.ndarray,
    tested: np.ndarray,
    near: float,
    alike: float = 1.0,
    *,
    across: bool = False,
) -> Search:
    """Compare every image with every other once.

    Args:
        vectors: float32, n×d, from `pictures`.
        patients: int, n; a number a patient, -1 for unknown.
        tested: bool, n; the test images, the others are what they are looked up in.
        near: correlation from which two images are near duplicates.
        alike: correlation from which an image of an unknown patient may be of another image's patient.
        across: compare test images with the others only, for `pool` and `pool_others`.
    """
    # Sorted, the images of one patient lie together: what must be hidden are a few rectangles.
    order = np.lexsort((patients, tested))
    vectors, patients, tested = vectors[order], patients[order], tested[order]
    count, border = len(order), int((~tested).sum())
    pool, others, closest = (Nearest.none(count) for _ in range(3))
    near_pairs, alike_pairs = _Collector(near), _Collector(alike)
    starts = [*range(0, border, BLOCK), *range(border, count, BLOCK), count]
    blocks = [slice(start, end) for start, end in pairwise(starts)]
    for rows, columns in combinations_with_replacement(blocks, 2):
        crossing = rows.start < border <= columns.start
        if across and not crossing:
            continue
        block = vectors[rows] @ vectors[columns].T
        if rows == columns:
            np.fill_diagonal(block, -np.inf)
        near_pairs.update(rows, columns, block)
        if min(patients[rows][0], patients[columns][0]) < 0:
            alike_pairs.update(rows, columns, block)
        if crossing:
            pool.update(columns, rows, block.T)
        _hide_own(block, patients[rows], patients[columns])
        closest.update(rows, columns, block)
        if rows != columns:
            closest.update(columns, rows, block.T)
        if crossing:
            # An image of unknown origin may be the patient's own: only known others stand for "without".
            unknown, known = (np.searchsorted(patients[part], 0) for part in (rows, columns))
            block[:unknown, known:] = -np.inf
            others.update(columns, rows, block.T)
    pool, others, closest = (nearest.unsorted(order) for nearest in (pool, others, closest))
    return Search(pool, others, closest, near_pairs.pairs(order), alike_pairs.pairs(order))


def _hide_own(block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Strike out the pairs of images of one patient; both lists of patients are sorted."""
    for patient in np.intersect1d(rows, columns):
        if patient >= 0:
            top, bottom = np.searchsorted(rows, [patient, patient + 1])
            left, right = np.searchsorted(columns, [patient, patient + 1])
            block[top:bottom, left:right] = -np.inf
