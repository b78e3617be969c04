"""A decoder plugin of pydicom: JPEG Lossless, JPEG Extended and JPEG-LS by imagecodecs.

imagecodecs brings libjpeg-turbo and CharLS. The other plugins of pydicom for these formats are under the GPL, or
end the process when a file is damaged.
"""

import contextlib
from importlib.util import find_spec

import numpy as np
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner

LABEL = "imagecodecs"
SYNTAXES = (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1, *uid.JPEGLSTransferSyntaxes)
#: What each transfer syntax needs, under the name that pydicom expects in a plugin.
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, (LABEL,))
#: Second byte of the marker that starts the header of a frame, in JPEG and in JPEG-LS.
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
END = b"\xff\xd9"


def register() -> None:
    """Make the plugin known to pydicom; further calls do nothing."""
    with contextlib.suppress(ValueError):  # it has the plugin already
        for syntax in SYNTAXES:
            get_decoder(syntax).add_plugin(LABEL, ("medrobust.data.sources.dicom_codecs", "decode_frame"))


def is_available(syntax: str) -> bool:
    """Whether imagecodecs is installed; pydicom calls it."""
    return find_spec(LABEL) is not None


def decode_frame(content: bytes, runner: DecodeRunner) -> bytes:
    """Decode the compressed pixels of a frame; pydicom calls it.

    Raises:
        ValueError: the content is truncated or damaged, or has another size than the header says.
    """
    import imagecodecs

    # Checked before decoding, whose memory grows with the size.
    if (size := _size(content)) != (runner.rows, runner.columns):
        raise ValueError(
            f"its compressed pixels are {size[0]}x{size[1]}, its header says {runner.rows}x{runner.columns}"
        )
    if not content.rstrip(b"\0").endswith(END):  # the decoders would fill in the missing pixels
        raise ValueError("its compressed pixels are truncated")
    try:
        if runner.transfer_syntax in uid.JPEGLSTransferSyntaxes:
            pixels = imagecodecs.jpegls_decode(content)
        else:  # pydicom converts colours
            colours = "RGB" if runner.samples_per_pixel > 1 else None
            pixels = imagecodecs.jpeg8_decode(content, colorspace=colours, outcolorspace=colours)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    return bytes(np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes())


def _size(content: bytes) -> tuple[int, int]:
    """Rows and columns of the frame; raises ValueError if no header of a frame is found."""
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:
        if content[place + 1] in FRAME_MARKERS:
            return int.from_bytes(content[place + 5 : place + 7]), int.from_bytes(content[place + 7 : place + 9])
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
    raise ValueError("its compressed pixels have no header of a frame")
