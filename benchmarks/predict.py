"""Time of `medrobust predict`: the first answer, many pictures, and a DICOM series.

Run `python benchmarks/predict.py models/resnet34/clean`. Seconds of wall clock and of processor time of the whole
process, its start included; images per second are those after the start. Files are random and temporary.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PICTURES, SIDE, SLICES = 1000, 256, 32


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "pictures", args.pictures)
        write_series(folder / "series")
        first = next((folder / "pictures").iterdir())
        start = measured("one PNG", args.model, first)
        whole = measured(f"{args.pictures} PNGs of {SIDE} pixels", args.model, folder / "pictures")
        for kind, total, one in zip(("wall clock", "processor time"), whole, start, strict=True):
            print(
                f"  {(args.pictures - 1) / max(total - one, 1e-9):.0f} images per second of {kind} after the start"
            )
        measured(f"a DICOM series of {SLICES} slices", args.model, folder / "series")


def measured(what: str, model: Path, path: Path) -> tuple[float, float]:
    """Run the command; return seconds of wall clock and of processor time."""
    command = [sys.executable, "-m", "medrobust", "predict", str(model), str(path)]
    before, begin = os.times(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - begin, os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    if done.returncode:
        sys.exit(done.stderr)
    print(f"{what}: {wall:.1f} s, processor {used:.1f} s, {len(done.stdout.splitlines()) - 1} answers")
    return wall, used


def write_pictures(folder: Path, count: int) -> None:
    """Grey pictures of smooth random pixels, which compress like scans."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (SIDE // 8, SIDE // 8), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(folder / f"{number:04d}.png")


def write_series(folder: Path) -> None:
    """An uncompressed CT series of 512×512 pixels."""
    folder.mkdir()
    rng, series = np.random.default_rng(0), generate_uid()
    for number in range(SLICES):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID, dataset.PatientID = series, "benchmark"
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * number]
        dataset.Rows = dataset.Columns = 512
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.WindowCenter, dataset.WindowWidth = 40, 400
        dataset.PixelData = rng.integers(900, 1300, (512, 512)).astype(np.uint16).tobytes()
        dataset.save_as(folder / f"{number:02d}.dcm", enforce_file_format=True)


if __name__ == "__main__":
    main()
