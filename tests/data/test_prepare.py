"""One image at a time: what decodes, what does not, and what then happens."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medrobust.data import images as module
from medrobust.data.images import decode
from medrobust.data.prepare import download, prepare
from medrobust.data.store import ImageStore
from medrobust.errors import UserError


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
    ).pixels
    assert pixels.shape == ((8, 8) if channels == 1 else (8, 8, 3))
    assert pixels.dtype == np.uint8


def test_sixteen_bits_keep_the_top_eight() -> None:
    pixels = np.full((8, 8), 0xABCD, dtype=np.uint16)
    assert (decode(encode(Image.fromarray(pixels)), 8, 1).pixels == 0xAB).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"I am a text", "no image"),
        (jpeg()[: len(jpeg()) // 2], "(?i)truncated"),
        (encode(grey(), "GIF", save_all=True, append_images=[grey().rotate(90)]), "2 frames"),
    ],
)
def test_what_does_not_decode_is_said(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(content, 8, 1)


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="20x20 pixels, more than 100"):
        decode(encode(grey()), 8, 1)


def test_a_bad_image_stops_the_run_or_is_counted(folder: Path, params: Any, tmp_path: Path) -> None:
    bad = next(folder.rglob("*.png"))
    bad.write_bytes(b"no image at all")
    data = params(path=str(folder))
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=r"does not decode \(no image\).*on_bad_image: skip"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()
    prepare(params(path=str(folder), on_bad_image="skip"), tmp_path / "raw", tmp_path / "prepared")
    store = ImageStore.open(tmp_path / "prepared")
    assert len(store.images) == 11
    assert store.header.skipped == [{"id": bad.relative_to(folder).as_posix(), "reason": "no image"}]
