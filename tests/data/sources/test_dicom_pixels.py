"""Grey levels and colours of DICOM files as PS3.3 C.11 and C.7.9 define them, by independent formulas."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medrobust.core.params.data import DataParams
from medrobust.data.images import Raster
from medrobust.data.sources import dicom_pixels as module
from medrobust.data.sources.dicom_pixels import decode, read_dataset
from tests.data.sources.samples import slice_file
from tests.params import default_block

#: 16 rows of 0, 10, ..., 150.
RAMP = np.tile(np.arange(0, 160, 10), (16, 1))
NONE: dict[str, Any] = {"WindowCenter": None, "WindowWidth": None}
PLAIN: dict[str, Any] = {"RescaleSlope": 1, "RescaleIntercept": 0}


def dataset(folder: Path, values: np.ndarray = RAMP, **tags: Any) -> pydicom.Dataset:
    """A file as it is read back; None deletes a tag."""
    slice_file(folder / "a.dcm", values, 0.0, "1.2", **{k: v for k, v in tags.items() if v is not None})
    found = pydicom.dcmread(folder / "a.dcm")
    for name in (name for name, value in tags.items() if value is None and name in found):
        delattr(found, name)
    return found


def shown(found: pydicom.Dataset, **changes: Any) -> Raster:
    return decode(found, default_block(DataParams, "data", **changes))


def lut(data: list[int], first: int, bits: int, kind: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(data) % 2**16, first, bits])
    item.add_new("LUTData", kind, data if kind == "US" else np.array(data, "<u2").tobytes())
    return item


@pytest.mark.parametrize("centre", [20, 80, 200])
@pytest.mark.parametrize("width", [2, 40, 1000])
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID", "sigmoid "])
def test_each_function_of_the_window(function: str | None, centre: int, width: int, tmp_path: Path) -> None:
    x = RAMP - 20.0
    if function is None or function == "LINEAR":
        expected = ((x - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)
    elif function == "LINEAR_EXACT":
        expected = ((x - centre) / width + 0.5).clip(0, 1)
    else:
        expected = 1 / (1 + np.exp((-4 * (x - centre) / width).clip(-700, 700)))
    tags: dict[str, Any] = {
        "VOILUTFunction": function,
        "WindowCenter": centre,
        "WindowWidth": width,
        "RescaleIntercept": -20,
    }
    found = dataset(tmp_path, **tags)
    assert np.abs(shown(found).pixels - 255 * expected).max() <= 0.5 + 1e-6
    inverse = dataset(tmp_path, **tags, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(shown(inverse).pixels, 255 - shown(found).pixels)


@pytest.mark.parametrize(
    ("tags", "inverse"),
    [
        ({"PresentationLUTShape": "IDENTITY"}, False),
        ({"PresentationLUTShape": ""}, False),
        ({"PresentationLUTShape": "INVERSE"}, True),
        ({"PresentationLUTShape": "INVERSE", "PhotometricInterpretation": "MONOCHROME1"}, True),
        ({"PresentationLUTShape": "IDENTITY", "PhotometricInterpretation": "MONOCHROME1"}, True),
    ],
)
def test_the_smallest_value_may_be_white(tags: dict[str, Any], inverse: bool, tmp_path: Path) -> None:
    plain, found = (shown(dataset(tmp_path, **PLAIN, **more)).pixels for more in ({}, tags))
    assert np.array_equal(found, 255 - plain if inverse else plain)


def test_a_negative_slope_and_signed_pixels(tmp_path: Path) -> None:
    tags: dict[str, Any] = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleSlope": -2,
                            "RescaleIntercept": 100, "WindowCenter": 100, "WindowWidth": 201}  # fmt: skip
    expected = np.clip((-2.0 * (RAMP - 70) + 100 - 99.5) / 200 + 0.5, 0, 1) * 255
    assert np.abs(shown(dataset(tmp_path, RAMP - 70, **tags)).pixels - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("fine", [np.float32(0.2), np.float32(1000)])
def test_the_window_of_the_params_comes_first(fine: np.float32, tmp_path: Path) -> None:
    found = dataset(tmp_path, VOILUTFunction="SIGMOID", RescaleSlope=float(fine), RescaleIntercept=0)
    pixels = shown(found, window=(0.0, 150 * float(fine))).pixels
    assert np.abs(pixels - RAMP / 150 * 255).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(("bits", "kind"), [(8, "US"), (12, "US"), (16, "US"), (16, "OW"), (10, "OW")])
@pytest.mark.parametrize("count", [100, 300])
@pytest.mark.parametrize("first", [0, 30, -20])
def test_a_voi_lut_comes_before_the_window(bits: int, kind: str, count: int, first: int, tmp_path: Path) -> None:
    """Also a table of 8 bits with more than 256 entries, and values on either side of the table."""
    table = np.random.default_rng(count).integers(0, 2**bits, count)
    found = dataset(tmp_path, VOILUTSequence=[lut(table.tolist(), first, bits, kind)], **PLAIN)
    expected = table[np.clip(RAMP - first, 0, count - 1)] / (2**bits - 1) * 255
    assert np.abs(shown(found).pixels - expected).max() <= 0.5 + 1e-6


def test_a_voi_lut_after_the_rescaling(tmp_path: Path) -> None:
    """In Hounsfield units; the first value may be stored without its sign."""
    table = np.arange(200)
    for first in (-100, 2**16 - 100):
        item = lut(table.tolist(), 0, 8)
        item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [200, first, 8])
        found = dataset(tmp_path, VOILUTSequence=[item], RescaleSlope=1.5, RescaleIntercept=-100)
        expected = np.rint(1.5 * RAMP - 100).astype(int).clip(-100, 99) + 100
        assert np.array_equal(shown(found).pixels, expected)


def test_a_modality_lut_comes_before_the_window(tmp_path: Path) -> None:
    table = np.arange(1000, 1100) * 2
    item = lut(table.tolist(), 20, 16)
    item.ModalityLUTType = "US"
    tags: dict[str, Any] = {"ModalityLUTSequence": [item], "RescaleSlope": None, "RescaleIntercept": None}
    tags |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": RAMP.astype(np.uint8).tobytes()}
    found = shown(dataset(tmp_path, **tags), window=(2000, 2200)).pixels
    assert np.abs(found - (table[np.clip(RAMP - 20, 0, 99)] - 2000) / 200 * 255).max() <= 0.5 + 1e-6


def palette(count: int, bits: int, first: int = 0, missing: str = "") -> dict[str, Any]:
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR", **NONE}
    for number, colour in enumerate(("Red", "Green", "Blue")):
        data = np.random.default_rng(number).integers(0, 2**bits, count).astype(f"<u{bits // 8}")
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [count % 2**16, first, bits]
        if colour != missing:
            tags[f"{colour}PaletteColorLookupTableData"] = data.tobytes()
    return tags


@pytest.mark.parametrize("window", [None, (0, 255)])
@pytest.mark.parametrize(("count", "bits", "first"), [(256, 16, 0), (256, 8, 0), (100, 8, 20), (1000, 16, 5)])
def test_a_palette_gives_its_colours(count: int, bits: int, first: int, window: Any, tmp_path: Path) -> None:
    found = shown(dataset(tmp_path, **palette(count, bits, first)), window=window)
    for number in range(3):
        data = np.random.default_rng(number).integers(0, 2**bits, count)
        expected = data[np.clip(RAMP - first, 0, count - 1)] / (2**bits - 1) * 255
        assert np.abs(found.pixels[..., number] - expected).max() <= 0.5 + 1e-6
    assert found.bits == bits


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (NONE, r"its header has no window; set data\.window \(its values range from -1024 to -874\)"),
        ({"WindowWidth": ""}, r"its header has no window; set data\.window"),
        ({"WindowWidth": 1}, r"the window in its header has centre 40 and width 1; set data\.window"),
        ({"WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, "centre 40 and width 0"),
        ({"WindowWidth": -5, "VOILUTFunction": "LINEAR_EXACT"}, "centre 40 and width -5"),
        ({"VOILUTFunction": "CUBIC"}, r"the unknown VOI LUT function CUBIC; set data\.window"),
        ({"VOILUTSequence": [Dataset()]}, r"its VOI LUT cannot be applied \(.*; set data\.window"),
        ({"VOILUTSequence": [lut([], 0, 8)]}, "its VOI LUT cannot be applied"),
        ({"VOILUTSequence": [lut([1, 2], 0, 16, "OW")], "BitsStored": 16, "HighBit": 15}, ""),
        (palette(300, 8), "a palette of 300 colours of 8 bits is not supported"),
        (palette(2**16, 8), "a palette of 65536 colours of 8 bits is not supported"),
        (palette(256, 16, missing="Blue"), "its pixels cannot be decoded"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "its pixels cannot be decoded"),
        ({"PhotometricInterpretation": None}, "its pixels cannot be decoded"),
        ({"RescaleSlope": ""}, "its pixels cannot be decoded"),
        ({"Rows": 40_000, "Columns": 40_000}, "it has 1600000000 pixels, more than 64000000"),
    ],
)
def test_what_a_header_lacks_is_said(tags: dict[str, Any], message: str, tmp_path: Path) -> None:
    found = dataset(tmp_path, **tags)
    if not message:
        assert set(np.unique(shown(found).pixels)) == {0}, "entries of 16 bits that are nearly 0"
        return
    with pytest.raises(ValueError, match=message):
        shown(found)


def frames(folder: Path, **tags: Any) -> pydicom.Dataset:
    """Three frames: the ramp, twice the ramp, three times the ramp."""
    stack = np.stack([RAMP, 2 * RAMP, 3 * RAMP]).astype(np.uint16)
    common = {"NumberOfFrames": 3, "PixelData": stack.tobytes(), "WindowCenter": 225, "WindowWidth": 451, **PLAIN}
    return dataset(folder, **{**common, **tags})


def of(frame: int | None) -> dict[str, Any]:
    return {"volume": {"range": [0.0, 1.0], "step": 1, "frame": frame}}


def test_one_of_several_frames_is_chosen(tmp_path: Path) -> None:
    found = frames(tmp_path)
    for number in range(3):
        expected = np.clip((number + 1) * RAMP / 450, 0, 1) * 255
        assert np.abs(shown(found, **of(number)).pixels - expected).max() <= 1
    with pytest.raises(ValueError, match=r"it has 3 frames; set data\.volume\.frame to the number of one, from 0"):
        shown(found, **of(None))
    with pytest.raises(ValueError, match=r"it has 3 frames, numbered from 0, and data\.volume\.frame is 3"):
        shown(found, **of(3))
    with pytest.raises(ValueError, match="its pixels cannot be decoded"):
        shown(frames(tmp_path, NumberOfFrames=30), **of(20))
    with pytest.raises(ValueError, match="it has -2 frames"):
        shown(frames(tmp_path, NumberOfFrames=-2), **of(None))
    assert np.array_equal(shown(dataset(tmp_path), **of(7)).pixels, shown(dataset(tmp_path)).pixels)


def test_an_enhanced_file_has_its_window_in_each_frame(tmp_path: Path) -> None:
    def group(**sequences: dict[str, Any]) -> Dataset:
        found = Dataset()
        for name, tags in sequences.items():
            item = Dataset()
            for tag, value in tags.items():
                setattr(item, tag, value)
            setattr(found, name, [item])
        return found

    shared = group(PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": -10})
    windows = [group(FrameVOILUTSequence={"WindowCenter": 100 * n, "WindowWidth": 101}) for n in (1, 2, 3)]
    found = frames(tmp_path, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=windows,
                   RescaleSlope=None, RescaleIntercept=None, WindowCenter=None, WindowWidth=None)  # fmt: skip
    for number in (2, 0, 1):
        expected = ((2 * (number + 1) * RAMP - 10 - (100 * (number + 1) - 0.5)) / 100 + 0.5).clip(0, 1) * 255
        assert np.abs(shown(found, **of(number)).pixels - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRLittleEndian"])
@pytest.mark.parametrize("start", ["data", "meta", "prefix"])
def test_files_without_preamble_are_read(syntax: str, start: str, tmp_path: Path) -> None:
    found = dataset(tmp_path)
    expected = shown(found).pixels
    found.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    found.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    content = (tmp_path / "a.dcm").read_bytes()
    skip = {"prefix": 128, "meta": 132, "data": 144 + int.from_bytes(content[140:144], "little")}[start]
    assert np.array_equal(shown(read_dataset(io.BytesIO(content[skip:]))).pixels, expected)


@pytest.mark.parametrize("content", [b"", b"DIC", b"<?xml version='1.0'?>" * 20, b"\x7fELF" * 99, bytes(500)])
def test_what_does_not_begin_like_dicom_is_refused(content: bytes) -> None:
    with pytest.raises(pydicom.errors.InvalidDicomError, match="does not begin like a DICOM file"):
        read_dataset(io.BytesIO(content))


def test_every_error_of_pydicom_is_a_reason() -> None:
    assert {ValueError, OverflowError, KeyError, AttributeError, pydicom.errors.InvalidDicomError} <= {
        *module.DICOM_ERRORS
    }
