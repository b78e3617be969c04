"""From raw data to the prepared store: fetch, list, decode every image once in parallel, write atomically."""

import hashlib
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import atomic_dir, write_json
from medrobust.core.runtime import progress, say
from medrobust.data.groups import with_groups
from medrobust.data.images import Raster, to_raster
from medrobust.data.sources.base import Listing, Release, get_source
from medrobust.data.sources.files import reader_threads
from medrobust.data.sources.labels import LabelMap
from medrobust.data.sources.segmentations import check_no_masks
from medrobust.data.sources.unused import IGNORED
from medrobust.data.store import Header, pixel_hash, write_store

#: Images that a thread decodes per task; neighbouring images often share a volume.
BLOCK = 32
#: If no pixel of a deep image exceeds this level, three or more of 8 bits are unused.
DARK = 31
Memmap = np.memmap[Any, np.dtype[Any]]


def download(data: DataParams, folder: Path, seed: int) -> None:
    """Write the raw data of `data.source` into `folder`, with a `source.json` that describes them.

    Raises:
        UserError: the source cannot provide the data, or `data.sha256` is set for data that are not one file.
    """
    source = get_source(data.source)
    with atomic_dir(folder) as temporary:
        facts = source.download(data, temporary, seed)
        if data.sha256 is not None and not facts.get("sha256"):
            found = "is set, but these data are not a single file"
            raise UserError("params.yaml: data.sha256", found, "Set it to null, or set data.path to an archive")
        write_json(temporary / "source.json", {"source": data.source, **facts})


def prepare(data: DataParams, raw: Path, folder: Path) -> None:
    """Decode the raw images to `data.image_size` and write the store.

    Raises:
        UserError: a class has no image, an image does not decode (with `on_bad_image: fail`), a patient has two
            labels (with `on_mixed_patient: fail`), or a deep image is nearly black, see `_check_depth`.
    """
    listing = get_source(data.source).listing(data, raw)
    if data.ignore and all(entry.reason != IGNORED for entry in listing.unused):
        found = f"data.source: {data.source} does not use it"
        raise UserError("params.yaml: data.ignore", found, "Set it to [], and leave files out by data.table")
    check_no_masks(listing.table["id"], LabelMap(data), in_table=data.table is not None)
    _check_classes(listing.table, data, listing.skipped)
    if (twice := listing.table["id"][listing.table["id"].duplicated()]).size:
        raise UserError(str(twice.iloc[0]), "occurs twice in the data", "Remove one of them")
    _mixed_patients(listing.table, data)  # fail before decoding, as far as patients are known already
    with atomic_dir(folder) as temporary:
        decoded = _decode_all(listing, data, temporary)
        groups = data.groups or listing.groups
        table = with_groups(listing.table.assign(sha256=decoded.hashes), groups, data.source)
        release = listing.release
        if listing.recover is not None:
            table, recognised = listing.recover(table)
            release = recognised or release
        _check_depth(decoded, data, table["id"].astype(str))
        decoded.bad |= _mixed_patients(table, data)
        keep = np.setdiff1d(np.arange(len(table)), list(decoded.bad))
        for name in ("images.npy", *(["masks.npy"] if listing.masks else [])):
            _keep_rows(temporary / name, keep)
        manifest = table.iloc[keep]
        header = _header(listing, data, manifest, release, decoded, pixel_hash(temporary / "images.npy"))
        _check_classes(manifest, data, header.skipped)
        write_store(temporary, manifest, header)
    left_out = sum(header.left_out.values())
    say(f"prepare: {header.images} images, {header.patients} patients, {len(header.skipped)} skipped"
        f"{f', {left_out} left out by data.labels' if left_out else ''}; verified: {header.verified}")  # fmt: skip
    if header.doubt:
        say(f"prepare: {header.doubt}")
    if header.ordered:
        say(f"prepare: the classes are grades, lowest first: {', '.join(header.classes)} (data.ordered)")
    for entry in listing.unused:
        more = " ..." if entry.count > len(entry.first) else ""
        files = "file is" if entry.count == 1 else "files are"
        say(f"prepare: {entry.count} {files} not read ({entry.reason}): {', '.join(entry.first)}{more}")


def _header(
    listing: Listing, data: DataParams, manifest: pd.DataFrame, release: Release, decoded: "_Decoded", sha256: str
) -> Header:
    ids = listing.table["id"].astype(str)
    unreadable = [{"id": ids.iloc[row], "reason": decoded.bad[row]} for row in sorted(decoded.bad)]
    return Header(
        source=data.source,
        classes=data.classes,
        ordered=data.ordered,
        image_size=data.image_size,
        channels=data.channels,
        images=len(manifest),
        patients=manifest["patient"][manifest["patient"] != ""].nunique(),
        counts={label: int((manifest["label"] == label).sum()) for label in data.classes},
        **asdict(release),
        sha256=sha256,
        raw_bit_depth=decoded.bits,
        skipped=listing.skipped + unreadable,
        left_out=listing.left_out,
        unused=[asdict(entry) for entry in listing.unused],
        groups=list(data.groups or listing.groups),
    )


def _check_classes(table: pd.DataFrame, data: DataParams, skipped: list[dict[str, str]]) -> None:
    for label in data.needed_classes:
        if not (table["label"] == label).any():
            found, remedy = "no image of this class", "Add images of it, or remove it from data.classes"
            if skipped:
                named = f"{skipped[0]['id']}: {skipped[0]['reason']}"
                found += f"; {len(skipped)} images were skipped, the first is {named}"
            raise UserError(f"params.yaml: data.classes: {label}", found, remedy)


def _mixed_patients(table: pd.DataFrame, data: DataParams) -> dict[int, str]:
    """Rows of patients with more than one label, with the reason to skip them (`on_mixed_patient: skip`)."""
    if data.on_mixed_patient == "keep":
        return {}
    known = table[(table["patient"] != "") & (table["kind"] == "real")]
    labels = known.groupby("patient")["label"].unique()
    mixed = {patient: " and ".join(sorted(names)) for patient, names in labels.items() if len(names) > 1}
    if mixed and data.on_mixed_patient == "fail":
        patient, names = next(iter(mixed.items()))
        remedy = "Fix the labels, or set data.on_mixed_patient: keep (two eyes, two visits) or skip"
        raise UserError(f"patient {patient}", f"has the labels {names} ({len(mixed)} such patients)", remedy)
    rows = np.flatnonzero(table["patient"].isin(list(mixed)))
    return {int(row): f"its patient has the labels {mixed[table['patient'].iloc[row]]}" for row in rows}


@dataclass
class _Decoded:
    """Facts about the decoded images, besides their pixels."""

    hashes: list[str]  # sha256 of each file, or of the pixels of an image that is not a file
    bits: int  # largest bit depth among the published images
    bad: dict[int, str]  # row -> why its image is skipped
    peaks: dict[int, int]  # row of each image deeper than 8 bits -> its brightest stored pixel
    unwindowed: set[int]  # those of which the top eight bits are stored, because no window is set


def _decode_all(listing: Listing, data: DataParams, folder: Path) -> _Decoded:
    """Read and decode every listed image once; write `images.npy` (and `masks.npy`) in `folder`."""
    ids, size = listing.table["id"].tolist(), data.image_size
    shape = (len(ids), size, size, *((3,) if data.channels == 3 else ()))
    pixels = _new_array(folder / "images.npy", np.uint8, shape)
    masks = _new_array(folder / "masks.npy", np.bool_, shape[:3]) if listing.masks else None
    hashes = [""] * len(ids)

    decoded = _Decoded(hashes, 8, {}, {}, set())

    def decode_block(start: int) -> tuple[int, dict[int, str]]:
        bits, faults = 8, {}
        for row in range(start, min(start + BLOCK, len(ids))):
            try:
                content = listing.read(ids[row])
                hashes[row] = _content_hash(content)
                image = to_raster(content, size, data.channels, data.window)
            except ValueError as error:
                faults[row] = str(error)
                continue
            pixels[row], bits = image.pixels, max(bits, image.bits)
            if image.bits > 8:
                decoded.peaks[row] = int(image.pixels.max())
                if data.window is None and isinstance(content, bytes):
                    decoded.unwindowed.add(row)
            if masks is not None and image.mask is not None:
                masks[row] = image.mask
        return bits, faults

    starts = range(0, len(ids), BLOCK)
    with ThreadPoolExecutor(reader_threads()) as pool:  # Pillow and zlib release the GIL
        blocks = pool.map(decode_block, starts)
        for bits, faults in progress(blocks, "prepare", len(starts), f"x {BLOCK} images"):
            if faults and data.on_bad_image == "fail":
                pool.shutdown(cancel_futures=True)
                row, fault = next(iter(faults.items()))
                remedy = "Fix or remove the file, or set data.on_bad_image: skip"
                raise UserError(ids[row], f"cannot be decoded ({fault})", remedy)
            decoded.bits, decoded.bad = max(decoded.bits, bits), decoded.bad | faults
    return decoded


def _check_depth(decoded: _Decoded, data: DataParams, ids: pd.Series) -> None:
    """Refuse deep images that fill few of the 256 grey levels, such as 12-bit images in 16-bit files.

    Without a window each image is judged alone, because one bright file proves nothing about the others. With a
    window, from the params or a DICOM header, single images may be dark, such as the end of a volume.
    """
    dark = [row for row in sorted(decoded.peaks) if decoded.peaks[row] <= DARK]
    if decoded.unwindowed.intersection(dark) or (dark and len(dark) == len(decoded.peaks)):
        levels = 1 + max(decoded.peaks[row] for row in dark)
        found = (
            f"{data.window}: {len(dark)} of {len(decoded.peaks)} images of more than 8 bits fill only {levels} of "
            f"256 grey levels (first {ids.iloc[dark[0]]})"
        )
        remedy = (
            "Set it to the range of the intensities, for example [0, 4095] for 12 bits ([0, 65535] if they are "
            "that dark), and save files of another depth with that depth"
        )
        raise UserError("params.yaml: data.window", found, remedy)


def _content_hash(content: bytes | Raster) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(str(content.pixels.shape).encode() + content.pixels.tobytes()).hexdigest()


def _new_array(path: Path, kind: type, shape: tuple[int, ...]) -> Memmap:
    needed, free = math.prod(shape) * np.dtype(kind).itemsize, shutil.disk_usage(path.parent).free
    if needed > free:  # writing to a mapped file on a full disk would kill the process without a message
        found = f"needs {needed / 1e9:.3g} GB, but only {free / 1e9:.3g} GB are free"
        raise UserError(str(path), found, "Free disk space, or set a smaller data.image_size")
    return np.lib.format.open_memmap(path, "w+", np.dtype(kind), shape)


def _keep_rows(path: Path, rows: np.ndarray) -> None:
    """Keep only some rows of an array file, copying block by block."""
    whole = np.load(path, mmap_mode="r")
    if len(rows) == len(whole):
        return
    selected = _new_array(path.with_suffix(".selected"), whole.dtype.type, (len(rows), *whole.shape[1:]))
    for start in range(0, len(rows), 1024):
        selected[start : start + 1024] = whole[rows[start : start + 1024]]
    selected.flush()
    path.with_suffix(".selected").replace(path)
