"""The contract of every registered corruption."""

import pytest
import torch
from torch import Tensor

from medrobust.attacks.projection import distance
from medrobust.core.errors import UserError
from medrobust.core.params.corruptions import CHANNELS
from medrobust.corruptions.base import SEVERITIES
from medrobust.corruptions.lookup import chosen_names, load_corruption
from medrobust.corruptions.registry import CORRUPTIONS, MODALITIES
from tests.corruptions.images import blobs


def seeds(n: int) -> Tensor:
    return torch.arange(n) * 1000 + 7


def channels_of(name: str) -> list[int]:
    return sorted({CHANNELS[modality] for modality, names in MODALITIES.items() if name in names})


CASES = [(name, channels) for name in CORRUPTIONS for channels in channels_of(name)]


def test_every_corruption_belongs_to_a_modality_and_every_modality_has_those_of_all() -> None:
    assert {name for names in MODALITIES.values() for name in names} == {*CORRUPTIONS}
    for names in MODALITIES.values():
        assert {"rotation", "translation", "intensity"} <= {*names}


@pytest.mark.parametrize(("name", "channels"), CASES)
@pytest.mark.parametrize("size", [24, 33])
def test_every_corruption_keeps_the_contract(name: str, channels: int, size: int) -> None:
    corruption, images = load_corruption(name), blobs(4, channels, size)
    before, state = images.clone(), torch.get_rng_state()
    results = [corruption(images, severity, seeds(4)) for severity in SEVERITIES]
    assert torch.equal(torch.get_rng_state(), state), "the global random state was touched"
    assert torch.equal(images, before), "the images were changed in place"
    for result in results:
        assert result.shape == images.shape
        assert result.dtype == torch.float32
        assert result.isfinite().all()
        assert result.min() >= 0
        assert result.max() <= 1
    lengths = torch.stack([distance(result, images, "L2").mean() for result in results])
    assert lengths[0] > 0.05, "the weakest severity changes nothing"
    assert (lengths.diff() > 0).all(), "a higher severity changes less"


@pytest.mark.parametrize(("name", "channels"), CASES)
def test_a_result_depends_on_the_image_and_its_seed_alone(name: str, channels: int) -> None:
    corruption, images = load_corruption(name), blobs(4, channels)
    whole = corruption(images, 3, seeds(4))
    assert torch.equal(corruption(images, 3, seeds(4)), whole)
    parts = [corruption(images[rows], 3, seeds(4)[rows]) for rows in ([2, 0], [3])]
    torch.testing.assert_close(torch.cat(parts), whole[[2, 0, 3]], atol=1e-6, rtol=0)
    other = corruption(images, 3, seeds(4) + 1)
    assert torch.equal(other, whole) != corruption.random


@pytest.mark.parametrize("severity", [0, 6, 2.5])
def test_a_severity_that_does_not_exist_is_refused(severity: int) -> None:
    with pytest.raises(UserError, match=r"severity: got .*whole number from 1 to 5"):
        load_corruption("gamma")(blobs(), severity, seeds(3))


def test_images_that_are_normalised_and_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"images: values from"):
        load_corruption("gamma")(blobs() - 0.5, 1, seeds(3))
    with pytest.raises(UserError, match=r"there is no 'fog'\. Known: motion"):
        load_corruption("fog")


def test_the_corruptions_of_a_modality_are_all_or_those_that_are_named() -> None:
    assert chosen_names("oct", []) == list(MODALITIES["oct"])
    assert chosen_names("mri", ["gamma", "motion"]) == ["motion", "gamma"]
    with pytest.raises(
        UserError, match=r"corruptions\.names: 'jpeg' is no corruption of mri\. Use some of: motion"
    ):
        chosen_names("mri", ["jpeg"])
