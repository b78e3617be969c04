"""JPEG Lossless, JPEG Extended and JPEG-LS in DICOM files: exact pixels, or a reason."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from medrobust.core.params.data import DataParams
from medrobust.data.sources import dicom_pixels
from medrobust.data.sources.dicom_pixels import decode
from tests.data.sources.samples import slice_file
from tests.params import default_block

Encode = Callable[[np.ndarray, int], bytes]


def jpeg(values: np.ndarray, bits: int, predictor: int | None = 1) -> bytes:
    colours = "RGB" if values.ndim == 3 else None
    options: dict[str, Any] = {"lossless": True, "predictor": predictor} if predictor else {"level": 100}
    return bytes(
        imagecodecs.jpeg8_encode(values, bitspersample=bits, colorspace=colours, outcolorspace=colours, **options)
    )


ENCODERS: dict[str, tuple[uid.UID, Encode, int]] = {  # name -> transfer syntax, encoder, largest error
    "lossless": (uid.JPEGLosslessSV1, jpeg, 0),
    "lossless 4": (uid.JPEGLossless, lambda values, bits: jpeg(values, bits, 4), 0),
    "ls": (uid.JPEGLSLossless, lambda values, bits: bytes(imagecodecs.jpegls_encode(values)), 0),
    "near": (uid.JPEGLSNearLossless, lambda values, bits: bytes(imagecodecs.jpegls_encode(values, level=2)), 2),
    "extended": (uid.JPEGExtended12Bit, lambda values, bits: jpeg(values, bits, None), 3),
}


def compressed(folder: Path, content: bytes, syntax: uid.UID, values: np.ndarray, **tags: Any) -> pydicom.Dataset:
    """A file of 12 bits in 16 whose pixels are `content`."""
    slice_file(folder / "a.dcm", values, 0.0, "1.2", RescaleSlope=1, RescaleIntercept=0)
    found = pydicom.dcmread(folder / "a.dcm")
    found.file_meta.TransferSyntaxUID = syntax
    for name, value in tags.items():
        setattr(found, name, value)
    found.PixelData = encapsulate([content])
    found["PixelData"].VR = "OB"
    found.save_as(folder / "a.dcm")
    return pydicom.dcmread(folder / "a.dcm")


def shown(found: pydicom.Dataset, low: float, high: float) -> np.ndarray:
    return decode(found, default_block(DataParams, "data", window=(low, high))).pixels


def smooth(bits: int) -> np.ndarray:
    """64×48 intensities over all of the range."""
    rows, columns = np.indices((64, 48))
    top = 2**bits - 1
    values: np.ndarray = np.rint((np.sin(rows / 9) * np.cos(columns / 7) + 1) / 2 * top)
    return values.astype(np.uint16 if bits > 8 else np.uint8)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_pixels_are_exact(name: str, bits: int, tmp_path: Path) -> None:
    syntax, encode, error = ENCODERS[name]
    if (name == "extended" and bits != 12) or (name in ("ls", "near") and bits == 12):
        pytest.skip("the format, or the encoder, has other depths")
    values, top = smooth(bits), 2**bits - 1
    allocated = 8 if bits == 8 else 16
    tags = {"BitsAllocated": allocated, "BitsStored": bits, "HighBit": bits - 1}
    found = compressed(tmp_path, encode(values, bits), syntax, values, **tags)
    expected = values / top * 255
    assert np.abs(shown(found, 0, top) - expected).max() <= 0.5 + 1e-6 + error * 255 / top


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("name", ["lossless", "lossless 4"])
def test_signed_pixels_keep_their_sign(name: str, bits: int, tmp_path: Path) -> None:
    values = smooth(bits).astype(np.int32) - 2 ** (bits - 1)
    stored = (values % 2**bits).astype(np.uint16)
    syntax, encode, _ = ENCODERS[name]
    tags = {"PixelRepresentation": 1, "BitsStored": bits, "HighBit": bits - 1}
    found = compressed(tmp_path, encode(stored, bits), syntax, stored, **tags)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert np.abs(shown(found, low, high) - (values - low) / (high - low) * 255).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("name", ["lossless", "ls"])
def test_colours_are_not_converted(name: str, tmp_path: Path) -> None:
    colours = np.stack([smooth(8), smooth(8)[::-1], 255 - smooth(8)], axis=-1)
    syntax, encode, _ = ENCODERS[name]
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0,
            "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}  # fmt: skip
    found = compressed(tmp_path, encode(np.ascontiguousarray(colours), 8), syntax, colours[..., 0], **tags)
    assert np.array_equal(decode(found, default_block(DataParams, "data")).pixels, colours)


VALUES = smooth(12)


@pytest.mark.parametrize("name", ["lossless", "extended", "ls"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "its compressed pixels are truncated"),
        (lambda content: content[:-2], "its compressed pixels are truncated"),
        (lambda content: content[:4], "its compressed pixels have no header of a frame"),
        (lambda content: b"\xff\xd8" + bytes(98), "its compressed pixels have no header of a frame"),
        (lambda content: content.replace(b"\0\x40\0\x30", b"\xff\xff\xff\xff", 1), "are 65535x65535"),
        (lambda content: content.replace(b"\0\x40\0\x30", b"\0\x40\0\x31", 1), "64x49, its header says 64x48"),
    ],
)  # fmt: skip
def test_damaged_pixels_have_a_reason(
    name: str, damage: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    syntax, encode, _ = ENCODERS[name]
    content = damage(encode(VALUES, 12))
    with pytest.raises(ValueError, match=rf"its pixels cannot be decoded \(.*{message}"):
        shown(compressed(tmp_path, content, syntax, VALUES), 0, 4095)


@pytest.mark.filterwarnings("ignore")  # pydicom warns about damaged files
@pytest.mark.parametrize("name", ENCODERS)
def test_damaged_bytes_give_an_image_or_a_reason(name: str, tmp_path: Path) -> None:
    """No decoder ends the process, hangs, or asks for memory that the header does not announce."""
    syntax, encode, _ = ENCODERS[name]
    content, rng = encode(VALUES, 12), np.random.default_rng(0)
    found = compressed(tmp_path, content, syntax, VALUES)
    for trial in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content) if trial % 2 else 60, 3):
            damaged[place] = rng.integers(0, 256)
        found.PixelData = encapsulate([bytes(damaged)])
        with contextlib.suppress(ValueError):
            assert shown(found, 0, 4095).shape == VALUES.shape


@pytest.mark.parametrize("name", ENCODERS)
def test_a_missing_decoder_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syntax, encode, _ = ENCODERS[name]
    found = compressed(tmp_path, encode(VALUES, 12), syntax, VALUES)
    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda syntax: SimpleNamespace(is_available=False))
    with pytest.raises(
        ValueError, match=r"its compression, JPEG.*, needs imagecodecs; run pip install medrobust\[f"
    ):
        shown(found, 0, 4095)


@pytest.mark.parametrize("syntax", [uid.HEVCMP51, uid.HTJ2K, uid.MPEG2MPML, uid.UID("1.2.3.4")])
def test_a_compression_that_nothing_reads_is_named(syntax: uid.UID, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"no decoder reads its compression, {syntax.name}; save it without"):
        shown(compressed(tmp_path, b"\0\1", syntax, VALUES), 0, 4095)
