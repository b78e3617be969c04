"""Corruptions give the same images on another device as on the CPU."""

import pytest
import torch

from medrobust.corruptions.lookup import load_corruption
from tests.corruptions.images import blobs
from tests.corruptions.test_contract import CASES, seeds
from tests.other_device import other_device


@pytest.mark.parametrize(("name", "channels"), CASES)
def test_every_corruption_gives_the_images_of_the_cpu(name: str, channels: int) -> None:
    corruption, images = load_corruption(name), blobs(3, channels)
    expected = [corruption(images, severity, seeds(3)) for severity in (1, 5)]
    with other_device() as device:
        found = [corruption(images.to(device), severity, seeds(3).to(device)) for severity in (1, 5)]
        assert {result.device for result in found} == {device}
        found = [result.cpu() for result in found]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
