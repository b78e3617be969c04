"""Time to prepare, audit and generate data on this machine: `python benchmarks/data.py [part ...] [--images N]`.

All data are generated in a temporary folder and deleted afterwards. Each part runs in a separate process to
measure its peak memory (resident set, which includes mapped files). Besides elapsed time, the benchmark prints
processor time over all cores, which is more reliable on a busy machine.
"""

import argparse
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.params.schema import load_params, override
from medrobust.data.audit.audit_split import audit_split
from medrobust.data.prepare import download, prepare
from medrobust.data.split import make_split
from medrobust.data.store import Header, ImageStore, write_store

CLASSES = ["a", "b", "c", "d"]
SLICES = 20  # per patient, in the images of the audit
DEFAULT = load_params(Path(__file__).parent.parent / "presets" / "default.yaml")
BLOCK: dict[str, Any] = {"classes": CLASSES, "image_size": 64}


def smooth(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random images with noise, uint8 count×size×size; those within a group of `SLICES` are similar."""
    from scipy import ndimage

    coarse = np.repeat(rng.normal(size=(-(-count // SLICES), 8, 8)), SLICES, axis=0)[:count]
    coarse = coarse + 0.3 * rng.normal(size=coarse.shape)
    images = ndimage.zoom(coarse, (1, size / 8, size / 8), order=1)
    noisy = 128 + 40 * images + rng.normal(0, 4, images.shape)
    levels: np.ndarray = np.clip(noisy, 0, 255).astype(np.uint8)
    return levels


def chunks(count: int, size: int, length: int = 1000) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (start, images) of `count` images in chunks."""
    for start in range(0, count, length):
        yield start, smooth(min(length, count - start), size, np.random.default_rng(start))


def write_images(folder: Path, count: int, size: int) -> None:
    """Write a prepared store of `count` images."""
    folder.mkdir()
    shape = (count, size, size)
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    for start, part in chunks(count, size):
        images[start : start + len(part)] = part
    images.flush()
    patient = np.arange(count) // SLICES
    manifest = pd.DataFrame({
        "id": [f"{n}.png" for n in range(count)], "sha256": [f"{n:064d}" for n in range(count)],
        "label": [CLASSES[p % len(CLASSES)] for p in patient], "patient": [f"p{p}" for p in patient],
        "slice": np.arange(count) % SLICES, "kind": "real", "parent": "", "published_split": "",
    })  # fmt: skip
    counts = {label: int((manifest["label"] == label).sum()) for label in CLASSES}
    header = Header("benchmark", CLASSES, True, size, 1, count, len(set(patient)), counts, "", "", "", "")
    write_store(folder, manifest, header)


def write_jpegs(path: Path, count: int) -> None:
    """Write a zip of class folders with `count` grey JPEG files of 128×128 pixels."""
    from PIL import Image

    with zipfile.ZipFile(path, "w") as archive:
        for start, part in chunks(count, 128):
            for number, pixels in enumerate(part, start):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "JPEG")
                archive.writestr(f"{CLASSES[number % len(CLASSES)]}/{number}.jpg", buffer.getvalue())


def run_audit(folder: Path) -> str:
    """Audit the store in `folder`; return the verdict."""
    store = ImageStore.open(folder)
    metrics = audit_split(store, make_split(store.manifest, store.header, DEFAULT.split, 1), DEFAULT.audit).metrics
    return f"{metrics['verdict']}, {metrics['near_pairs']} near pairs"


def run_prepare(archive: Path, folder: Path) -> str:
    """Prepare an archive at 64×64 pixels, from the archive to the store."""
    data = override(DEFAULT.data, {**BLOCK, "source": "archive", "path": str(archive)}, "data")
    download(data, folder / "raw", seed=1)
    prepare(data, folder / "raw", folder / "prepared")
    return f"{ImageStore.open(folder / 'prepared').header.images} images"


def run_phantom(folder: Path, patients: int, slices: int) -> str:
    """Generate phantom slices of 64×64 pixels."""
    phantom = {
        "patients": dict.fromkeys(CLASSES, patients),
        "slices": slices,
        "difficulty": 0.6,
        "ripple": 0.0,
        "shift": 0.0,
    }
    data = override(DEFAULT.data, {**BLOCK, "phantom": phantom}, "data")
    download(data, folder / "phantom", seed=1)
    return f"{len(CLASSES) * patients * slices} slices"


def measure(work: Callable[..., str], *args: Any) -> tuple[str, float, float, float]:
    """Return the result of `work`, seconds, seconds of processor time, and peak memory of this process in GiB."""
    start, cpu = time.perf_counter(), time.process_time()
    result = work(*args)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return result, seconds, cpu, peak / 2**30


def run_in_process(work: Callable[..., Any], *args: Any) -> Any:
    """Run `work` in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def main() -> None:
    """Print one line per part."""
    parts = ["prepare", "audit", "phantom"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"one or more of {', '.join(parts)}; default: all")
    parser.add_argument("--images", type=int, default=100_000, help="number of images to audit")
    parser.add_argument("--size", type=int, default=64, help="their side length in pixels")
    parser.add_argument("--jpegs", type=int, default=11_519, help="number of JPEG files to prepare")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(parts):
        parser.error(f"no part {', '.join(unknown)}: choose from {', '.join(parts)}")
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in args.parts or parts:
            work: tuple[Any, ...] = (run_phantom, folder, 25, 10)
            if part == "prepare":
                run_in_process(write_jpegs, folder / "images.zip", args.jpegs)
                work = (run_prepare, folder / "images.zip", folder)
            elif part == "audit":
                run_in_process(write_images, folder / "store", args.images, args.size)
                work = (run_audit, folder / "store")
            result, seconds, cpu, peak = run_in_process(measure, *work)
            line = f"{part}: {seconds:.1f} s ({cpu:.1f} s of processor time), peak {peak:.2f} GiB: {result}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
