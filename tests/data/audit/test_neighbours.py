"""The blocked search against all pairs at once."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medrobust.data.audit import neighbours
from medrobust.data.audit.neighbours import Pairs, pictures, search


@given(st.integers(2, 60), st.integers(1, 9), st.floats(0, 1), st.integers(1, 16), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_blocks_find_what_the_whole_matrix_shows(
    count: int, people: int, known: float, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 5)).astype(np.float32)
    vectors[rng.integers(count, size=count // 3)] = vectors[0]  # exact copies
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    patients = np.where(rng.random(count) < known, rng.integers(people, size=count), -1)
    tested = rng.random(count) < 0.4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK", block)
        found = search(vectors, patients, tested, near=0.7, alike=0.5)
        across = search(vectors, patients, tested, near=0.7, across=True)

    matrix = vectors @ vectors.T
    np.fill_diagonal(matrix, -np.inf)
    own = (patients[:, None] == patients) & (patients >= 0)
    lookup = np.broadcast_to(tested[:, None] & ~tested, matrix.shape)
    doubtful = (patients[:, None] >= 0) & (patients == -1)
    for nearest, allowed in (
        (found.pool, lookup), (found.pool_others, lookup & ~own & ~doubtful), (found.closest, ~own),
    ):  # fmt: skip
        masked = np.where(allowed, matrix, -np.inf)
        np.testing.assert_allclose(nearest.similarity, masked.max(1), atol=1e-6)
        some = nearest.index >= 0
        np.testing.assert_array_equal(some, np.isfinite(masked.max(1)))
        np.testing.assert_allclose(masked[some, nearest.index[some]], masked.max(1)[some], atol=1e-6)
    listed = pair_sets(found.near)
    assert set(listed) == {frozenset(pair) for pair in np.argwhere(matrix >= 0.7).tolist()}
    assert len(listed) == len(set(listed)) == found.near.count
    assert (np.diff(found.near.similarity) <= 0).all()
    blind = (matrix >= 0.5) & ((patients[:, None] < 0) | (patients < 0))
    assert set(pair_sets(found.alike)) >= {frozenset(pair) for pair in np.argwhere(blind).tolist()}
    for nearest, same in ((across.pool, found.pool), (across.pool_others, found.pool_others)):
        np.testing.assert_array_equal(nearest.index, same.index)
    assert set(pair_sets(across.near)) == {pair for pair in listed if tested[list(pair)].sum() == 1}


def pair_sets(pairs: Pairs) -> list[frozenset[int]]:
    return [frozenset(pair) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)]


def test_too_many_pairs_are_counted_and_the_most_similar_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST_PAIRS", 20)
    monkeypatch.setattr(neighbours, "BLOCK", 8)
    angle = np.arange(40, dtype=np.float32) ** 2 / 2000
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = search(vectors, np.arange(40), np.zeros(40, bool), near=0.9).near
    every = np.sort((vectors @ vectors.T)[np.triu_indices(40, 1)])[::-1]
    assert found.count == (every >= 0.9).sum() > 40
    np.testing.assert_allclose(found.similarity, every[:20], atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 24, 24), (7, 50, 50), (7, 96, 96, 3), (7, 16, 16)])
def test_pictures_are_centred_block_means_of_length_one(shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    images[3] = 9
    rows = np.array([5, 0, 3])
    found = pictures(images, rows)
    assert found.shape == (3, min(shape[1], 24) ** 2)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0], atol=1e-5)
    grey = (images.mean(3) if images.ndim == 4 else images.astype(float))[5]
    side = min(shape[1], 24)
    edges = np.linspace(0, shape[1], side + 1).astype(int)
    small = np.array([
        [grey[a:b, c:d].mean() for c, d in pairwise(edges)]
        for a, b in pairwise(edges)
    ]).ravel()  # fmt: skip
    small -= small.mean()
    np.testing.assert_allclose(found[0], small / np.linalg.norm(small), atol=1e-5)
    np.save(tmp_path / "images.npy", images)
    np.testing.assert_array_equal(pictures(np.load(tmp_path / "images.npy", mmap_mode="r"), rows), found)
