"""Exact nearest neighbours and near duplicates among thumbnails, by blocked matrix products (docs/data.md)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from mmap import mmap

import numpy as np

#: Side length of the thumbnails, and number of images per side of a block. A block of 4 MiB stays in the
#: processor's cache; with larger blocks the search takes half as long again.
SIDE, BLOCK = 24, 1024
#: Maximum number of pairs that are kept; beyond it the least similar are dropped.
MAX_PAIRS = 1_000_000


def thumbnails(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Downsample images by averaging, centre them and scale to length 1; a blank image becomes all zero.

    Args:
        images: uint8, N×H×W or N×H×W×C, in memory or memory-mapped.
        rows: int, n; the images to use, in this order.

    Returns:
        float32, n×SIDE² (n×H² for images smaller than SIDE).
    """
    size = images.shape[1]
    edges = np.linspace(0, size, min(SIDE, size) + 1).astype(int)[:-1]
    counts = np.diff([*edges, size]).astype(np.float32)
    weight = 1 / (counts[:, None] * counts[None, :])
    out = np.empty((len(rows), len(edges) ** 2), dtype=np.float32)
    position = np.full(len(images), -1)
    position[rows] = np.arange(len(rows))
    for start, chunk in chunks(images):
        target = position[start : start + len(chunk)]
        part: np.ndarray = chunk[target >= 0].astype(np.float32)
        part = part.mean(3) if part.ndim == 4 else part
        part = np.add.reduceat(np.add.reduceat(part, edges, axis=1), edges, axis=2) * weight
        flat = part.reshape(len(part), -1)
        flat -= flat.mean(1, keepdims=True)
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        out[target[target >= 0]] = np.where(length > 1e-3, flat / np.maximum(length, 1e-3), 0)
    return out


def chunks(images: np.ndarray, size: int = 1024) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (start, images) in storage order; each chunk of a mapped file has its own map, to free its pages."""
    for start in range(0, len(images), size):
        if isinstance(images, np.memmap) and isinstance(images.base, mmap):  # a whole mapped file, not a view
            shape = (min(size, len(images) - start), *images.shape[1:])
            offset = images.offset + start * images.strides[0]
            yield start, np.memmap(str(images.filename), images.dtype, "r", offset, shape)
        else:
            yield start, images[start : start + size]


@dataclass(frozen=True)
class NearestNeighbours:
    """Nearest allowed neighbour per image."""

    index: np.ndarray  # int, n; position of the neighbour, -1 if there is none
    similarity: np.ndarray  # float32, n; correlation with the neighbour, -inf if there is none

    @classmethod
    def empty(cls, count: int) -> "NearestNeighbours":
        return cls(np.full(count, -1), np.full(count, -np.inf, dtype=np.float32))

    def update(self, rows: slice, columns: slice, block: np.ndarray) -> None:
        """Update the neighbours of `rows` with their correlations with `columns`."""
        top = block.max(1)
        better = np.flatnonzero(top > self.similarity[rows])
        if len(better):  # improvements become rare, so the positions are rarely looked up
            self.similarity[rows.start + better] = top[better]
            self.index[rows.start + better] = columns.start + block[better].argmax(1)

    def in_original_order(self, order: np.ndarray) -> "NearestNeighbours":
        """Undo a sorting: image i here is image `order[i]` in the result."""
        result = NearestNeighbours.empty(len(order))
        result.index[order] = np.where(self.index >= 0, order[self.index], -1)
        result.similarity[order] = self.similarity
        return result


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of images whose correlation reaches a threshold; each pair is listed once.

    The arrays hold the `MAX_PAIRS` most similar pairs at most, most similar first; `count` counts all.
    """

    count: int
    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


class _PairCollector:
    """Collects similar pairs block by block."""

    def __init__(self, threshold: float) -> None:
        self.threshold, self.floor, self.count = threshold, threshold, 0
        self.parts = [(np.empty(0, int), np.empty(0, int), np.empty(0, np.float32))]

    def update(self, rows: slice, columns: slice, block: np.ndarray) -> None:
        """Add the pairs of a block; of a diagonal block, only those above the diagonal."""
        candidates = np.flatnonzero(block.max(1) >= self.threshold)
        if not len(candidates):
            return
        part = block[candidates]
        if rows == columns:
            part[np.arange(block.shape[1]) <= candidates[:, None]] = -np.inf
        self.count += int(np.count_nonzero(part >= self.threshold))
        first, second = np.nonzero(part >= self.floor)
        self.parts.append((rows.start + candidates[first], columns.start + second, part[first, second]))
        if sum(len(part[0]) for part in self.parts) > 2 * MAX_PAIRS:
            self.parts = [self._most_similar()]
            self.floor = float(self.parts[0][2][-1])

    def _most_similar(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first, second, similarity = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        order = np.lexsort((second, first, -similarity))[:MAX_PAIRS]
        return first[order], second[order], similarity[order]

    def pairs(self, order: np.ndarray) -> SimilarPairs:
        """The collected pairs; image i of the search is image `order[i]` in the result."""
        first, second, similarity = self._most_similar()
        return SimilarPairs(self.count, order[first], order[second], similarity)


@dataclass(frozen=True)
class SearchResult:
    """Neighbours and similar pairs, as positions of vectors; the pool are the images of train and validation.

    For a test image without a patient id, `in_pool_other_patients` searches the whole pool. `same_patient` holds
    all pairs with an image without a patient id, and some pairs of images with one.
    """

    in_pool: NearestNeighbours  # the nearest image of the pool, for each test image
    in_pool_other_patients: NearestNeighbours  # the same among images of other known patients
    other_patients: NearestNeighbours  # for each image, among all that are not known to be of its patient
    near_duplicates: SimilarPairs
    same_patient: SimilarPairs


def search(
    vectors: np.ndarray,
    patients: np.ndarray,
    is_test: np.ndarray,
    near_duplicate: float,
    same_patient: float = 1.0,
    *,
    across: bool = False,
) -> SearchResult:
    """Compare every image with every other once.

    Args:
        vectors: float32, n×d, from `thumbnails`.
        patients: int, n; one number per patient, -1 for unknown.
        is_test: bool, n; the test images; all others form the pool.
        near_duplicate: correlation from which two images are near duplicates.
        same_patient: correlation from which an image without a patient id may be of another image's patient.
        across: only compare test images with the pool, for `in_pool` and `in_pool_other_patients`.
    """
    # After sorting, images of a patient are adjacent, and the pairs to exclude form a few rectangles per block.
    order = np.lexsort((patients, is_test))
    vectors, patients, is_test = vectors[order], patients[order], is_test[order]
    count, border = len(order), int((~is_test).sum())
    in_pool, in_pool_others, others = (NearestNeighbours.empty(count) for _ in range(3))
    near_duplicates, candidates = _PairCollector(near_duplicate), _PairCollector(same_patient)
    starts = [*range(0, border, BLOCK), *range(border, count, BLOCK), count]
    blocks = [slice(start, end) for start, end in pairwise(starts)]
    for rows, columns in combinations_with_replacement(blocks, 2):
        crossing = rows.start < border <= columns.start
        if across and not crossing:
            continue
        block = vectors[rows] @ vectors[columns].T
        if rows == columns:
            np.fill_diagonal(block, -np.inf)
        near_duplicates.update(rows, columns, block)
        if min(patients[rows][0], patients[columns][0]) < 0:
            candidates.update(rows, columns, block)
        if crossing:
            in_pool.update(columns, rows, block.T)
        _exclude_same_patient(block, patients[rows], patients[columns])
        others.update(rows, columns, block)
        if rows != columns:
            others.update(columns, rows, block.T)
        if crossing:
            # A pool image without a patient id may be of the test patient, so it is no image of another patient.
            unknown, known = (np.searchsorted(patients[part], 0) for part in (rows, columns))
            block[:unknown, known:] = -np.inf
            in_pool_others.update(columns, rows, block.T)
    in_pool, in_pool_others, others = (n.in_original_order(order) for n in (in_pool, in_pool_others, others))
    return SearchResult(in_pool, in_pool_others, others, near_duplicates.pairs(order), candidates.pairs(order))


def _exclude_same_patient(block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Set the pairs of images of one patient to -inf; both lists of patients are sorted."""
    for patient in np.intersect1d(rows, columns):
        if patient >= 0:
            top, bottom = np.searchsorted(rows, [patient, patient + 1])
            left, right = np.searchsorted(columns, [patient, patient + 1])
            block[top:bottom, left:right] = -np.inf
