"""Decoding of single images: which images decode, and the reasons why others do not."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medrobust.data import images as module
from medrobust.data.images import decode, to_raster, to_uint8


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(size: int = 20) -> Image.Image:
    return Image.fromarray(np.arange(size * size, dtype=np.uint16).reshape(size, size).astype(np.uint8))


def jpeg() -> bytes:
    return encode(grey(), "JPEG")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "LA", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_decodes_to_the_same_shape(mode: str, channels: int) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    pixels = decode(
        encode(grey().convert("RGB").convert(mode) if mode != "LA" else grey().convert("LA"), kind), 8, channels
    )
    assert pixels.shape == ((8, 8) if channels == 1 else (8, 8, 3))
    assert pixels.dtype == np.uint8


def test_sixteen_bits_keep_the_top_eight() -> None:
    pixels = np.full((8, 8), 0xABCD, dtype=np.uint16)
    assert (decode(encode(Image.fromarray(pixels)), 8, 1) == 0xAB).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"I am a text", "not an image"),
        (jpeg()[: len(jpeg()) // 2], "(?i)truncated"),
        (encode(grey(), "GIF", save_all=True, append_images=[grey().rotate(90)]), "it has 2 frames"),
    ],
)
def test_an_image_that_does_not_decode_is_reported(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(content, 8, 1)


def png(width: int, height: int) -> bytes:
    """A PNG whose header gives any size, with almost no data."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(20_000, 20_000), "exceeds limit|400000000 pixels"),
        (png(9_000, 9_000), "9000x9000 pixels, more than 64000000"),
        (png(500, 500), "(?i)truncated|unrecognized"),
    ],
)
def test_a_bomb_is_refused_before_it_is_decompressed(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(content, 8, 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_pixels_are_windowed(kind: str) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60  # 12 of 16 bits
    found = to_raster(encode(Image.fromarray(values), kind), 8, 1, (0, 4095))
    assert np.array_equal(found.pixels, np.rint(np.clip(values / 4095, 0, 1) * 255))
    assert found.bits == 16
    assert to_raster(jpeg(), 8, 1, (0, 4095)).bits == 8


@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_deep_colours_keep_the_top_eight_bits(kind: str) -> None:
    import cv2

    values = np.random.default_rng(0).integers(0, 2**16, (8, 8, 3)).astype(np.uint16)
    content = cv2.imencode(kind, values[..., ::-1])[1].tobytes()  # OpenCV expects blue first
    assert np.array_equal(decode(content, 8, 3), values >> 8)


def test_intensities_without_a_known_range_need_a_window() -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    content = encode(Image.fromarray(values), "TIFF")
    with pytest.raises(ValueError, match=r"intensities range from -1 to 1; set data\.window"):
        decode(content, 8, 1)
    assert decode(content, 8, 1, (-1, 1))[[0, -1], [0, -1]].tolist() == [0, 255]


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2), low=st.floats(-1e5, 1e5), width=st.floats(1e-3, 1e5))
def test_a_window_keeps_the_order_and_its_ends(values: list[float], low: float, width: float) -> None:
    array = np.array(values)
    pixels = to_uint8(array, (low, low + width))
    assert (np.diff(pixels[np.argsort(array)].astype(int)) >= 0).all()
    assert (pixels[array <= low] == 0).all()
    assert (pixels[array >= low + width] == 255).all()
    assert to_uint8(np.array([np.nan]), (0, 1)) == 0


def test_transparent_pixels_are_black() -> None:
    rgba = np.full((8, 8, 4), 255, dtype=np.uint8)
    rgba[:4, :, 3] = 0
    pixels = decode(encode(Image.fromarray(rgba)), 8, 3)
    assert (pixels[:4] == 0).all()
    assert (pixels[4:] == 255).all()
    palette = Image.fromarray(np.repeat([[0], [1]], 4, 0).repeat(8, 1).astype(np.uint8)).convert("P")
    palette.putpalette([200, 100, 0, 10, 20, 30])
    assert decode(encode(palette, transparency=0), 8, 3)[[0, 7], 0].tolist() == [[0, 0, 0], [10, 20, 30]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(kind: str) -> None:
    colours = Image.new("RGB", (8, 8), (250, 120, 10))
    pixels = decode(encode(colours.convert("CMYK"), kind), 8, 3)
    assert np.abs(pixels.astype(int) - (250, 120, 10)).max() < 12


def test_the_orientation_of_the_camera_is_applied() -> None:
    wide = Image.fromarray(np.repeat([[0], [255]], 4, 0).repeat(8, 1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    content = encode(wide, "JPEG", exif=exif, quality=100)
    assert decode(content, 8, 1)[[0, 7], 0].tolist() == [255, 0]


@pytest.mark.filterwarnings("ignore")  # the decoders warn about damaged files
@settings(max_examples=200)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]),
    place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), length=st.floats(0.1, 1),
)  # fmt: skip
def test_damaged_bytes_give_an_image_or_a_reason(kind: str, place: float, value: int, length: float) -> None:
    content = bytearray(encode(grey(), kind))
    content[int(place * len(content))] = value
    with contextlib.suppress(ValueError):
        assert decode(bytes(content[: int(length * len(content))]), 8, 1).shape == (8, 8)


def photographs(*sizes: int, kind: str = "MPO") -> bytes:
    first, *others = (grey(size).convert("RGB") for size in sizes)
    return encode(first, kind, save_all=True, append_images=others)


@pytest.mark.parametrize("sizes", [(20, 10), (20, 20), (20, 40), (20, 10, 5), (20, 20, 20, 20)])
def test_the_first_picture_of_a_photograph_is_used(sizes: tuple[int, ...]) -> None:
    first = np.asarray(Image.open(io.BytesIO(photographs(*sizes))).convert("L"))
    assert np.array_equal(decode(photographs(*sizes), 20, 1), first)


def test_a_photograph_is_damaged_like_any_image(monkeypatch: pytest.MonkeyPatch) -> None:
    content = photographs(20, 10)
    assert np.array_equal(decode(content[:-50], 20, 1), decode(content, 20, 1)), "the first picture is whole"
    with pytest.raises(ValueError, match=r"cannot load this image|not an image"):
        decode(content[:500], 20, 1)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    buffer = io.BytesIO()
    wide = Image.fromarray(np.repeat([[0], [255]], 4, 0).repeat(8, 1).astype(np.uint8)).convert("RGB")
    wide.save(buffer, "MPO", save_all=True, append_images=[wide], exif=exif, quality=100)
    assert decode(buffer.getvalue(), 8, 1)[[0, 7], 0].tolist() == [255, 0]
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="20x20 pixels, more than 100"):
        decode(content, 20, 1)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG"])
def test_several_frames_need_a_choice(kind: str) -> None:
    frames = [Image.fromarray(np.full((8, 8), level, dtype=np.uint8)) for level in (10, 200)]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="it has 2 frames; save the one to be used as a file of its own"):
        decode(content, 8, 1)


@pytest.mark.parametrize("kind", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colours_have_their_depth_and_no_window(kind: str, channels: int) -> None:
    import cv2

    values = np.full((8, 8, channels), 2**16 - 1, dtype=np.uint16)
    content = cv2.imencode(kind, values)[1].tobytes()
    assert to_raster(content, 8, 3).bits == 16
    with pytest.raises(ValueError, match=r"its colours have 16 bits, and data\.window is for grey images"):
        to_raster(content, 8, 3, (0, 4095))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white_is_inverted(depth: type) -> None:
    bright = np.iinfo(depth).max // 4 * 3
    content = bytearray(encode(Image.fromarray(np.full((8, 8), bright, dtype=depth)), "TIFF"))
    place = content.find(struct.pack("<HHI", module.PHOTOMETRIC, 3, 1))
    content[place + 8] = 0
    assert (decode(bytes(content), 8, 1) == 255 - bright // (depth(1) if depth is np.uint8 else 256)).all()


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="20x20 pixels, more than 100"):
        decode(encode(grey()), 8, 1)
