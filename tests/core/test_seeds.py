"""Random numbers per image are reproducible, uniform and independent."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medrobust.core.seeds import image_seeds, signs, uniform


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=5, unique=True), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_a_row_depends_only_on_its_seed_and_stream(values: list[int], stream: int) -> None:
    whole = uniform(torch.tensor(values), stream, (2, 3))
    for row, value in zip(whole, values, strict=True):
        assert torch.equal(row, uniform(torch.tensor([value]), stream, (2, 3))[0])
    assert not torch.equal(whole, uniform(torch.tensor(values), stream + 1, (2, 3)))


def test_draws_are_uniform_and_uncorrelated() -> None:
    draws = uniform(torch.arange(400), 3, (500,))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.003
    assert abs(draws.var() - 1 / 12) < 0.001
    assert abs(torch.corrcoef(draws[:2])[0, 1]) < 0.2
    assert abs(torch.corrcoef(torch.stack([draws[:, :-1].flatten(), draws[:, 1:].flatten()]))[0, 1]) < 0.01
    assert abs(signs(torch.arange(400), 3, (500,)).mean()) < 0.01


def test_an_image_seed_depends_only_on_its_id_and_the_seed_of_the_run() -> None:
    one, two = image_seeds(["a", "b"], 1).tolist()
    assert one != two
    assert image_seeds(["b", "c", "a"], 1).tolist()[::2] == [two, one]
    assert not {one, two} & set(image_seeds(["a", "b"], 2).tolist())
