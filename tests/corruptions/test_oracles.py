"""Every corruption against an independent implementation: TorchIO, PIL or SciPy."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

from medrobust.corruptions import detail, geometry, intensity, kspace, noise
from tests.corruptions.images import blobs

torchio: Any = pytest.importorskip("torchio")
sitk: Any = pytest.importorskip("SimpleITK")


def volume(image: Tensor) -> Any:
    """A subject of TorchIO with one slice, 1×H×W×1."""
    return torchio.ScalarImage(tensor=image[0][None, :, :, None].clone())


def slice_of(result: Any) -> Tensor:
    data: Tensor = result.data
    return data[0, :, :, 0]


def each(*values: float) -> Tensor:
    return torch.tensor(values)


def test_motion_is_that_of_torchio() -> None:
    images = blobs(1)
    degrees, times = each(6.0, -9.0)[None], each(0.3, 0.72)[None]
    shifts = torch.tensor([[[1.5, -2.0], [-0.7, 1.2]]])
    found = kspace.Motion().apply(images, degrees=degrees, shifts=shifts, times=times)[0, 0]
    # TorchIO splits the last axis and takes poses in the order of time: the true pose is that of the centre.
    flat = sitk.GetImageFromArray(images[0].permute(2, 1, 0).numpy().copy())  # x has one pixel, z has the columns
    poses = [sitk.Euler3DTransform()]
    for turn, (right, down) in zip(degrees[0].tolist(), shifts[0].tolist(), strict=True):
        pose = sitk.Euler3DTransform()
        pose.SetCenter((0.0, 15.5, 15.5))
        pose.SetRotation(np.deg2rad(turn), 0.0, 0.0)
        pose.SetTranslation((0.0, down, right))
        poses.append(pose.GetInverse())
    motion = torchio.Motion(np.zeros((2, 3)), np.zeros((2, 3)), times[0].numpy(), "linear")
    wanted = motion.add_artifact(flat, poses, times[0].numpy(), "linear")[0]
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1])
def test_ghosting_is_that_of_torchio(axis: int) -> None:
    images = blobs(1)
    found = kspace.Ghosting().apply(images, ghosts=each(5), axis=each(axis), loss=each(0.7))[0, 0]
    wanted = slice_of(torchio.Ghosting(5, axis, 0.7, None)(volume(images[0])))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_spike_is_that_of_torchio() -> None:
    images = blobs(1)
    found = kspace.Spike().apply(images, places=each(0.7, 0.38)[None], height=each(0.4))[0, 0]
    wanted = slice_of(torchio.Spike(np.array([[0.7, 0.38, 0.5]]), 0.4)(volume(images[0])))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_bias_field_is_that_of_torchio() -> None:
    images, drawn = blobs(1), torch.rand(1, 10, generator=torch.Generator().manual_seed(1)) - 0.5
    by_term = dict(zip(intensity.TERMS, drawn[0].tolist(), strict=True))
    ordered = [by_term[i, j] if k == 0 else 0.0 for i in range(4) for j in range(4 - i) for k in range(4 - i - j)]
    found = intensity.BiasField().apply(images, coefficients=drawn)[0, 0]
    wanted = slice_of(torchio.BiasField(ordered, 3)(volume(images[0])))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_gamma_is_that_of_torchio() -> None:
    images = blobs(1)
    found = intensity.Gamma().apply(images, amount=each(-0.4))[0, 0]
    wanted = slice_of(torchio.Gamma(float(np.exp(-0.4)))(volume(images[0])))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("found", "window"),
    [
        (lambda x: intensity.Exposure().apply(x, amount=each(0.2)), (-0.2, 0.8)),
        (lambda x: intensity.WindowShift().apply(x, centre=each(0.4), width=each(1.2)), (-0.2, 1.0)),
        (lambda x: intensity.IntensityScaling().apply(x, amount=each(0.6)), (0.0, 1 / 1.6)),
    ],
)
def test_exposure_window_and_intensity_are_windows_of_torchio(found: Any, window: tuple[float, float]) -> None:
    images = blobs(1)
    wanted = slice_of(torchio.RescaleIntensity((0, 1), (0, 100), in_min_max=window)(volume(images[0])))
    torch.testing.assert_close(found(images)[0, 0].clamp(0, 1), wanted.clamp(0, 1), atol=1e-6, rtol=0)


def test_illumination_from_the_centre_is_the_radial_gradient_of_pil() -> None:
    white = torch.ones(1, 3, 256, 256)
    found = intensity.Illumination().apply(white, spots=torch.zeros(1, 2), loss=each(0.8))[0, 1]
    gradient = np.asarray(Image.radial_gradient("L")) / 255
    np.testing.assert_allclose(found, 1 - 0.8 * gradient, atol=0.012)


def test_illumination_is_brightest_at_its_spot() -> None:
    field = intensity.Illumination().apply(torch.ones(1, 1, 41, 41), spots=each(0.5, -0.25)[None], loss=each(0.8))
    assert divmod(int(field[0, 0].argmax()), 41) == (30, 15)
    assert field.max() == 1


def test_rotation_is_that_of_pil() -> None:
    images = blobs(1)
    found = geometry.Rotation().apply(images, amount=each(17.0))[0, 0]
    wanted = Image.fromarray(images[0, 0].numpy()).rotate(17.0, Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found, np.asarray(wanted), atol=1e-5)


def test_translation_is_that_of_scipy() -> None:
    from scipy.ndimage import shift

    images = blobs(1)
    found = geometry.Translation().apply(images, shifts=each(2.3, -1.6)[None])[0, 0]
    np.testing.assert_allclose(found, shift(images[0, 0].numpy(), (-1.6, 2.3), order=1), atol=1e-5)


def test_resolution_is_that_of_pil() -> None:
    images = blobs(1)
    found = detail.Resolution().apply(images, amount=torch.tensor(2.9))[0, 0]
    small = Image.fromarray(images[0, 0].numpy()).resize((11, 11), Image.Resampling.BILINEAR)
    wanted = np.asarray(small.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_blur_is_that_of_scipy(channels: int) -> None:
    from scipy.ndimage import gaussian_filter

    images = blobs(1, channels, 64)
    found = detail.Blur().apply(images, amount=torch.tensor(1.5))[0]
    wanted = gaussian_filter(images[0].numpy(), (0, 1.5, 1.5), mode="nearest")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_pil(channels: int) -> None:
    images = blobs(1, channels)
    found = detail.Jpeg().apply(images, amount=torch.tensor(20.0))[0]
    pixels = (images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=20)
    wanted = np.asarray(Image.open(file)).reshape(32, 32, channels) / 255
    np.testing.assert_allclose(found.permute(1, 2, 0), wanted, atol=2.1 / 255)


def flat(level: float) -> Tensor:
    """Two hundred seeds' worth of pixels with one grey level."""
    return torch.full((200, 1, 16, 16), level)


SEEDS = torch.arange(200) * 7919


def test_rician_noise_has_the_distribution_of_scipy() -> None:
    corruption, level, sigma = noise.RicianNoise(), 0.15, 0.06
    found = corruption.apply(flat(level), **corruption.draw(flat(level), sigma, SEEDS)).flatten().numpy()
    assert stats.kstest(found, stats.rice(level / sigma, scale=sigma).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("level", "photons"), [(0.5, 12.0), (1.0, 200.0), (0.02, 25.0)])
def test_poisson_noise_has_the_distribution_of_scipy(level: float, photons: float) -> None:
    corruption = noise.PoissonNoise()
    found = corruption.apply(flat(level), **corruption.draw(flat(level), photons, SEEDS)).flatten()
    counts = (found * photons).round().long()
    torch.testing.assert_close(found * photons, counts.float(), atol=1e-3, rtol=0)
    share = torch.bincount(counts) / len(counts)
    wanted = stats.poisson(level * photons).pmf(np.arange(len(share)))
    np.testing.assert_allclose(share, wanted, atol=5 * (wanted.max() / len(counts)) ** 0.5)
    assert stats.poisson(level * photons).sf(int(counts.max())) < 1e-2


def test_a_poisson_quantile_is_that_of_scipy() -> None:
    quantiles = torch.linspace(0.001, 0.9999, 256).view(1, 1, 16, 16)
    found = noise.PoissonNoise().apply(torch.full((1, 1, 16, 16), 0.7), photons=each(50), quantiles=quantiles) * 50
    wanted = stats.poisson(35.0).ppf(quantiles.numpy()).astype(np.float32)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_speckle_has_the_distribution_of_scipy() -> None:
    corruption = noise.Speckle()
    found = corruption.apply(flat(0.4), **corruption.draw(flat(0.4), 0.2, SEEDS)).flatten().numpy()
    assert stats.kstest(found, stats.norm(0.4, 0.4 * 0.2).cdf).pvalue > 1e-3
