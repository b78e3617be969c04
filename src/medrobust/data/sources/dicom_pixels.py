"""Decode one frame of a DICOM file to 8 bits, through the lookup tables or the window of its header."""

import io
import struct
from typing import IO

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    get_decoder,
    pixel_array,
)
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medrobust.core.params.data import InputParams
from medrobust.data.images import MAX_PIXELS, Raster, to_uint8
from medrobust.data.sources import dicom_codecs
from medrobust.data.sources.files import READ_ERRORS
from medrobust.data.sources.volumes import chosen_frame

#: Errors of pydicom for damaged files; tags are converted on access, so any of them may be raised late.
DICOM_ERRORS = (
    InvalidDicomError, BytesLengthException, struct.error, NotImplementedError, AttributeError, TypeError,
    RuntimeError, ValueError, KeyError, IndexError, OverflowError, *READ_ERRORS,
)  # fmt: skip
#: Groups of the first tag of a file without preamble, in either byte order.
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
#: Sequences that hold, for each frame of an enhanced file, what other files have in their header.
FRAME_SEQUENCES = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
WINDOW_TAGS = ("WindowCenter", "WindowWidth")
WINDOW_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")

dicom_codecs.register()


def read_dataset(stream: IO[bytes], **options: object) -> pydicom.Dataset:
    """Read a DICOM file with `pydicom.dcmread`; the preamble, or its part before `DICM`, may be missing.

    Raises:
        InvalidDicomError: it does not begin like a DICOM file.
    """
    start = stream.read(132)
    stream.seek(0)
    if start[:4] == b"DICM":
        stream = io.BytesIO(stream.read()[4:])
    elif start[128:] != b"DICM" and start[:2] not in FIRST_GROUPS:
        raise InvalidDicomError("it does not begin like a DICOM file")
    dataset = pydicom.dcmread(stream, force=True, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def decode(dataset: pydicom.Dataset, data: InputParams) -> Raster:
    """Decode a file, or of a file with several frames the one that `data.volume.frame` names.

    Grey values go through the modality LUT or the rescale slope, then through `data.window`, or without one
    through the VOI LUT or the window of the header (PS3.3 C.11.1 and C.11.2). Palettes become colours (C.7.9).

    Raises:
        ValueError: the pixels cannot be decoded, or the header does not say how they are shown.
    """
    frame = chosen_frame(_whole_number(dataset, "NumberOfFrames"), data.volume)
    if (pixels := _whole_number(dataset, "Rows") * _whole_number(dataset, "Columns")) > MAX_PIXELS:
        raise ValueError(f"it has {pixels} pixels, more than {MAX_PIXELS}")
    plugin = _plugin(dataset)
    try:
        _use_frame_tags(dataset, frame)
        values = pixel_array(dataset, index=frame, decoding_plugin=plugin)
        bits, photometric = int(dataset.BitsStored), str(dataset.PhotometricInterpretation)
        if photometric == "PALETTE COLOR":
            return _coloured(values, dataset)
        if int(dataset.SamplesPerPixel) > 1:
            return Raster(to_uint8(values, (0.0, 2.0**bits - 1)), bits=bits)
        if dataset.get("ModalityLUTSequence"):
            values = values.astype(np.int64)  # pydicom computes with indices in the type of the pixels
        values = apply_modality_lut(values, dataset)
        # Two tags say that the smallest value is white; a file may have both.
        inverse = photometric == "MONOCHROME1" or str(dataset.get("PresentationLUTShape", "")).upper() == "INVERSE"
    except DICOM_ERRORS as error:
        raise ValueError(f"its pixels cannot be decoded ({' '.join(str(error).split())})") from None
    shown = _shown(values, dataset) if data.window is None else to_uint8(values, data.window)
    return Raster(255 - shown if inverse else shown, bits=bits)


def _whole_number(dataset: pydicom.Dataset, name: str) -> int:
    try:
        return int(dataset.get(name) or 1)
    except DICOM_ERRORS as error:
        raise ValueError(f"its {name} is not a number ({error})") from None


def _plugin(dataset: pydicom.Dataset) -> str:
    """Name of the plugin for the compression of the pixels; empty lets pydicom choose.

    Raises:
        ValueError: no decoder is installed for it.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is not None and decoder.is_available:
        return dicom_codecs.LABEL if dicom_codecs.LABEL in decoder.available_plugins else ""
    if syntax in dicom_codecs.SYNTAXES:
        raise ValueError(f"its compression, {syntax.name}, needs imagecodecs; run pip install medrobust[formats]")
    raise ValueError(f"no decoder reads its compression, {syntax.name}; save it without compression")


def _use_frame_tags(dataset: pydicom.Dataset, frame: int) -> None:
    """Put the rescaling and the window that an enhanced file has for a frame into its header."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*shared[:1], *frames[frame : frame + 1]):
        for name in FRAME_SEQUENCES:
            if group.get(name):
                dataset.update(group[name].value[0])


def _coloured(values: np.ndarray, dataset: pydicom.Dataset) -> Raster:
    """The colours of a palette, without its transparency."""
    entries, _, bits = (int(number) for number in dataset.RedPaletteColorLookupTableDescriptor)
    if bits == 8 and not 0 < entries <= 256:  # pydicom would wrap indices above 255
        raise ValueError(f"a palette of {entries or 2**16} colours of 8 bits is not supported")
    colours = apply_color_lut(values, dataset)[..., :3]
    return Raster(to_uint8(colours, (0.0, 2.0**bits - 1)), bits=bits)


def _shown(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Map intensities to uint8 as the header says: by its first VOI LUT, or without one by its first window."""
    try:
        if dataset.get("VOILUTSequence"):
            return _through_lut(values, dataset)
    except DICOM_ERRORS as error:
        raise ValueError(f"its VOI LUT cannot be applied ({error}); set data.window") from None
    return _windowed(values, dataset)


def _through_lut(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    item = dataset.VOILUTSequence[0]
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    if first >= 2**15 and values.min() < 0:  # a negative number that was read without its sign
        first -= 2**16
    # pydicom computes indices in the type of the entries, in which those beyond the table, or 8 bits, would wrap.
    item.add_new("LUTDescriptor", "SL", [entries, first, 16])
    indices = np.clip(np.rint(values), first, first + (entries or 2**16) - 1).astype(np.int64)
    return to_uint8(apply_voi(indices, dataset), (0.0, 2.0**bits - 1))


def _windowed(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    try:
        centre, width = (float(np.atleast_1d(dataset[tag].value)[0]) for tag in WINDOW_TAGS)
        function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    except DICOM_ERRORS:
        known = f"its values range from {values.min():g} to {values.max():g}"
        raise ValueError(f"its header has no window; set data.window ({known})") from None
    if function not in WINDOW_FUNCTIONS:
        raise ValueError(f"its header has the unknown VOI LUT function {function}; set data.window")
    if not np.isfinite(centre) or not (1 if function == "LINEAR" else 0) < width < np.inf:
        raise ValueError(f"the window in its header has centre {centre:g} and width {width:g}; set data.window")
    window = pydicom.Dataset()
    for tag in WINDOW_TAGS:
        window.add(dataset[tag])
    # apply_windowing fills the range of the stored values; that of 8 unsigned bits is 0 to 255.
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    window.VOILUTFunction = function
    with np.errstate(over="ignore"):  # in the exponential of SIGMOID, far from the centre
        return to_uint8(apply_windowing(values, window), (0.0, 255.0))
