"""The blocked search agrees with the whole matrix of correlations."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medrobust.data.audit import neighbours
from medrobust.data.audit.neighbours import SimilarPairs, search, thumbnails


@given(st.integers(2, 60), st.integers(1, 9), st.floats(0, 1), st.integers(1, 16), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_blocked_search_agrees_with_the_whole_matrix(
    count: int, people: int, known: float, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 5)).astype(np.float32)
    vectors[rng.integers(count, size=count // 3)] = vectors[0]  # exact copies
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    patients = np.where(rng.random(count) < known, rng.integers(people, size=count), -1)
    is_test = rng.random(count) < 0.4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK", block)
        result = search(vectors, patients, is_test, near_duplicate=0.7, same_patient=0.5)
        across = search(vectors, patients, is_test, near_duplicate=0.7, across=True)

    matrix = vectors @ vectors.T
    np.fill_diagonal(matrix, -np.inf)
    own = (patients[:, None] == patients) & (patients >= 0)
    lookup = np.broadcast_to(is_test[:, None] & ~is_test, matrix.shape)
    doubtful = (patients[:, None] >= 0) & (patients == -1)
    for nearest, allowed in (
        (result.in_pool, lookup), (result.in_pool_other_patients, lookup & ~own & ~doubtful),
        (result.other_patients, ~own),
    ):  # fmt: skip
        masked = np.where(allowed, matrix, -np.inf)
        np.testing.assert_allclose(nearest.similarity, masked.max(1), atol=1e-6)
        some = nearest.index >= 0
        np.testing.assert_array_equal(some, np.isfinite(masked.max(1)))
        np.testing.assert_allclose(masked[some, nearest.index[some]], masked.max(1)[some], atol=1e-6)
    listed = pair_sets(result.near_duplicates)
    assert set(listed) == {frozenset(pair) for pair in np.argwhere(matrix >= 0.7).tolist()}
    assert len(listed) == len(set(listed)) == result.near_duplicates.count
    assert (np.diff(result.near_duplicates.similarity) <= 0).all()
    candidates = (matrix >= 0.5) & ((patients[:, None] < 0) | (patients < 0))
    assert set(pair_sets(result.same_patient)) >= {frozenset(pair) for pair in np.argwhere(candidates).tolist()}
    for nearest, same in (
        (across.in_pool, result.in_pool),
        (across.in_pool_other_patients, result.in_pool_other_patients),
    ):
        np.testing.assert_array_equal(nearest.index, same.index)
    assert set(pair_sets(across.near_duplicates)) == {pair for pair in listed if is_test[list(pair)].sum() == 1}


def pair_sets(pairs: SimilarPairs) -> list[frozenset[int]]:
    return [frozenset(pair) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)]


def test_all_pairs_are_counted_and_the_most_similar_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_PAIRS", 20)
    monkeypatch.setattr(neighbours, "BLOCK", 8)
    angle = np.arange(40, dtype=np.float32) ** 2 / 2000
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    result = search(vectors, np.arange(40), np.zeros(40, bool), near_duplicate=0.9).near_duplicates
    every = np.sort((vectors @ vectors.T)[np.triu_indices(40, 1)])[::-1]
    assert result.count == (every >= 0.9).sum() > 40
    np.testing.assert_allclose(result.similarity, every[:20], atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 24, 24), (7, 50, 50), (7, 96, 96, 3), (7, 16, 16)])
def test_thumbnails_are_centred_block_means_of_length_one(shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    images[3] = 9
    rows = np.array([5, 0, 3])
    result = thumbnails(images, rows)
    assert result.shape == (3, min(shape[1], 24) ** 2)
    np.testing.assert_allclose(result.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), [1, 1, 0], atol=1e-5)
    grey = (images.mean(3) if images.ndim == 4 else images.astype(float))[5]
    side = min(shape[1], 24)
    edges = np.linspace(0, shape[1], side + 1).astype(int)
    small = np.array([
        [grey[a:b, c:d].mean() for c, d in pairwise(edges)]
        for a, b in pairwise(edges)
    ]).ravel()  # fmt: skip
    small -= small.mean()
    np.testing.assert_allclose(result[0], small / np.linalg.norm(small), atol=1e-5)
    np.save(tmp_path / "images.npy", images)
    np.testing.assert_array_equal(thumbnails(np.load(tmp_path / "images.npy", mmap_mode="r"), rows), result)
