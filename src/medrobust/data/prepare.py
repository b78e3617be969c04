"""From raw data to the prepared store: fetch, list, decode once in parallel, write whole or not at all."""

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from medrobust.data.sources.base import Listing, get_source
from medrobust.data.store import Header, write_store
from medrobust.errors import UserError
from medrobust.params.data import DataParams
from medrobust.records import atomic_dir, write_json
from medrobust.runtime import progress, say

#: More pixels than this in one image is taken for a decompression bomb.
MAX_PIXELS = 64_000_000


def download(data: DataParams, folder: Path, seed: int) -> None:
    """Fill `folder` with the raw data of `data.source` and a `source.json` that says what they are."""
    source = get_source(data.source)
    with atomic_dir(folder) as temporary:
        facts = source.download(data, temporary, seed)
        write_json(temporary / "source.json", {"source": data.source, **facts})


def prepare(data: DataParams, raw: Path, folder: Path) -> None:
    """Decode the raw images to `data.image_size` and write the store.

    Raises:
        UserError: a class without an image, an image that does not decode (with `on_bad_image: fail`).
    """
    listing = get_source(data.source).listing(data, raw)
    check_classes(listing.table, data)
    with atomic_dir(folder) as temporary:
        pixels, hashes, bad = _decode_all(listing, data, temporary / "images.npy")
        keep = [row for row in range(len(listing.table)) if row not in bad]
        if bad:
            np.save(temporary / "images.npy", pixels[keep])
        manifest = listing.table.assign(sha256=hashes).iloc[keep]
        check_classes(manifest, data)
        images = np.load(temporary / "images.npy", mmap_mode="r")
        skipped = [{"id": str(listing.table["id"].iloc[row]), "reason": reason} for row, reason in bad.items()]
        known = manifest["patient"][manifest["patient"] != ""]
        header = Header(
            source=data.source,
            classes=data.classes,
            ordered=data.ordered,
            image_size=data.image_size,
            channels=data.channels,
            images=len(manifest),
            patients=known.nunique(),
            counts={label: int((manifest["label"] == label).sum()) for label in data.classes},
            licence=listing.licence,
            citation=listing.citation,
            url=listing.url,
            sha256=hashlib.sha256(images.data).hexdigest(),
            skipped=skipped,
        )
        write_store(temporary, manifest, header)
    say(f"prepare: {header.images} images, {header.patients} patients, {len(skipped)} skipped")


def check_classes(table: pd.DataFrame, data: DataParams) -> None:
    """Refuse a data set that lacks a class.

    Raises:
        UserError: a class of `data.classes` has no image.
    """
    for label in data.classes:
        if not (table["label"] == label).any():
            remedy = "Put images into its folder, or take it out of data.classes"
            raise UserError(f"params.yaml: data.classes: {label}", "no image of this class", remedy)


def decode(content: bytes, size: int, channels: int) -> np.ndarray:
    """Decode one encoded image to uint8, size×size (×3 for three channels).

    Raises:
        ValueError: the bytes are empty, truncated, no image, animated, or too many pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"{image.n_frames} frames")  # type: ignore[attr-defined]
            image.load()
            picture = image.copy()
        if picture.mode.startswith("I"):  # 16 bit: keep the top eight
            picture = Image.fromarray((np.asarray(picture, dtype=np.uint32) >> 8).astype(np.uint8))
        picture = picture.convert("L" if channels == 1 else "RGB")
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(picture)
    except UnidentifiedImageError:
        raise ValueError("no image" if content else "an empty file") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


def _decode_all(listing: Listing, data: DataParams, path: Path) -> tuple[np.ndarray, list[str], dict[int, str]]:
    """Decode every listed image into `images.npy`; return the array, file hashes and {row: fault}."""
    ids = listing.table["id"].tolist()
    shape = (len(ids), data.image_size, data.image_size, *((3,) if data.channels == 3 else ()))
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    hashes, bad = [""] * len(ids), {}

    def work(row: int) -> str:
        content = listing.read(ids[row])
        hashes[row] = hashlib.sha256(content).hexdigest()
        try:
            pixels[row] = decode(content, data.image_size, data.channels)
        except ValueError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow and zlib release the interpreter's lock
        for row, fault in enumerate(progress(pool.map(work, range(len(ids))), "prepare", len(ids), "images")):
            if fault and data.on_bad_image == "fail":
                pool.shutdown(cancel_futures=True)
                remedy = "Mend or remove the file, or set data.on_bad_image: skip"
                raise UserError(ids[row], f"does not decode ({fault})", remedy)
            if fault:
                bad[row] = fault
    pixels.flush()
    return pixels, hashes, bad
