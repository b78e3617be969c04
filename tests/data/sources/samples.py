"""A small data set per source in its published format, without network access."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

Block = dict[str, Any]


def encoded(seed: int, mode: str = "L", size: int = 16, kind: str = "PNG") -> bytes:
    """An encoded random image."""
    rng = np.random.default_rng(seed)
    shape = (size, size, len(Image.new(mode, (1, 1)).getbands()))
    pixels = rng.integers(0, 256, shape, dtype=np.uint8).squeeze()
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode if mode != "P" else None).save(buffer, kind)
    return buffer.getvalue()


def phantom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """Two patients per class."""
    classes = ["low", "high"]
    block = {"patients": dict.fromkeys(classes, 2), "slices": 2, "difficulty": 0.5, "ripple": 0.0, "shift": 0.0}
    return {"classes": classes, "phantom": block}


def archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """A zip of class folders in train and test."""
    with zipfile.ZipFile(folder / "a.zip", "w") as target:
        for number, name in enumerate(("train/Non Demented", "test/Non Demented", "train/mild", "test/mild")):
            target.writestr(f"raw/{name}/é {number}.png", encoded(number))
    return {"classes": ["NonDemented", "Mild"], "path": str(folder / "a.zip")}


def oct2017(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """`OCT2017.tar.gz`."""
    with tarfile.open(folder / "OCT2017.tar.gz", "w:gz") as tar:
        for split in ("train", "test"):
            for number, label in enumerate(("CNV", "DME", "DRUSEN", "NORMAL")):
                content = encoded(number + 10 * len(split), kind="JPEG")
                info = tarfile.TarInfo(
                    f"OCT2017 /{split}/{label}/{label}-{1000 + 10 * number + len(split)}-1.jpeg"
                )
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return {
        "classes": ["NORMAL", "DRUSEN", "DME", "CNV"],
        "path": str(folder / "OCT2017.tar.gz"),
        "ordered": False,
    }


def matlab(label: int, patient: str, image: np.ndarray, mask: np.ndarray) -> bytes:
    """A MATLAB 7.3 file: HDF5 after 512 bytes of text; arrays are stored transposed."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        data = file.create_group("cjdata")
        data["label"] = np.array([[float(label)]])
        data["PID"] = np.array([[ord(sign)] for sign in patient], dtype=np.uint16)
        data["image"] = image.T.astype(np.int16)
        data["tumorBorder"] = np.zeros((1, 4))
        data["tumorMask"] = mask.T.astype(np.uint8)
    return _with_header(buffer.getvalue())


def matlab_folds(folds: list[int]) -> bytes:
    """`cvind.mat`: the fold of each image, in the order of the numbers of the files."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        file["cvind"] = np.array([folds], dtype=np.float64)
    return _with_header(buffer.getvalue())


def _with_header(content: bytes) -> bytes:
    text = b"MATLAB 7.3 MAT-file, Platform: PCWIN64, HDF5 schema 1.00 ."
    return text.ljust(124) + b"\x00\x02IM" + bytes(384) + content[512:]


def tumour(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A 12-bit image that is bright in its upper right corner, and a mask of that corner."""
    image = np.random.default_rng(number).integers(100, 1000, (24, 24))
    image[:8, 16:] = 2000 + number
    mask = np.zeros((24, 24), dtype=bool)
    mask[:8, 16:] = True
    return image, mask


def figshare_tumor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """A zip of two zips, with the file of folds and a README."""
    with zipfile.ZipFile(folder / "1512427.zip", "w") as outer:
        for start in (1, 4):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as inner:
                for number in range(start, start + 3):
                    inner.writestr(f"{number}.mat", matlab(number % 3 + 1, f"MR0{number}A", *tumour(number)))
            outer.writestr(f"brainTumorDataPublic_{start}-{start + 2}.zip", buffer.getvalue())
        outer.writestr("cvind.mat", matlab_folds([1, 2, 3, 1, 2, 3]))
        outer.writestr("README.txt", "This brain tumor dataset ...")
    return {
        "classes": ["meningioma", "glioma", "pituitary"],
        "path": str(folder / "1512427.zip"),
        "ordered": False,
    }


def medmnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """A small version of a colour flag of MedMNIST."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 7), ("val", 7), ("test", 7)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None]
    np.savez_compressed(folder / "dermamnist.npz", **arrays)  # type: ignore[arg-type]
    classes = [
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions",
        "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions",
    ]  # fmt: skip
    return {"classes": classes, "path": str(folder / "dermamnist.npz"), "ordered": False, "channels": 3}


def parquet(path: Path, images: list[Any], labels: list[int], names: list[str], **columns: Any) -> None:
    """A Parquet file as the `datasets` library writes it: struct of bytes and path, class names in the schema."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    image = pa.array([{"bytes": content, "path": None} for content in images])
    table = pa.table({"image": image, "label": pa.array(labels, pa.int64()), **columns})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=2)


def huggingface(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """A small version of `Falah/Alzheimer_MRI`: a train and a test file, class names in the schema."""
    names = ["Mild_Demented", "Moderate_Demented", "Non_Demented", "Very_Mild_Demented"]
    (folder / "data").mkdir()
    for seed, split in enumerate(("train", "test")):
        images = [encoded(10 * seed + number, kind="JPEG") for number in range(5)]
        parquet(folder / "data" / f"{split}-00000-of-00001-c08a.parquet", images, [0, 1, 2, 3, 3], names)
    return {
        "classes": ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"],
        "path": str(folder / "data"),
    }


def kaggle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """The folder in the cache of kagglehub, with class names that `data.labels` maps."""
    downloaded = folder / "datasets" / "lukechugh" / "best" / "versions" / "1"
    names = ("No Impairment", "Mild Impairment")
    for seed, name in enumerate(f"{split}/{label}" for split in ("train", "test") for label in names):
        (downloaded / "Combined Dataset" / name).mkdir(parents=True)
        (downloaded / "Combined Dataset" / name / "1 (2).jpg").write_bytes(encoded(seed, kind="JPEG"))
    monkeypatch.setattr("kagglehub.dataset_download", lambda handle: str(downloaded))
    return {
        "classes": ["NonDemented", "MildDemented"], "path": "lukechugh/best-alzheimer-mri-dataset-99-accuracy",
        "labels": {"No Impairment": "NonDemented", "Mild Impairment": "MildDemented"},
    }  # fmt: skip


def volume(path: Path, values: np.ndarray, orientation: str = "RAS", code: int = 1) -> None:
    """Store a volume, given in RAS+, in another orientation with the matching affine."""
    image = nib.Nifti1Image(values, np.eye(4))
    wanted = nib.orientations.axcodes2ornt(orientation)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted))
    turned.set_sform(turned.affine, code)
    turned.set_qform(turned.affine, code)
    nib.save(turned, path)


def nifti(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """Four volumes in three orientations, and a CSV of labels."""
    root = folder / "volumes"
    root.mkdir()
    for number, orientation in enumerate(("RAS", "LPS", "PIR", "LAS")):
        values = np.random.default_rng(number).integers(0, 4000, (12, 14, 10)).astype(np.int16)
        volume(root / f"sub-{number}.nii{'.gz' if number % 2 else ''}", values, orientation)
    paths = ["sub-0.nii", "sub-1.nii.gz", "sub-2.nii", "sub-3.nii.gz"]
    table = pd.DataFrame({"path": paths, "label": ["CN", "AD"] * 2, "patient": ["a", "b", "c", "d"]})
    table.to_csv(folder / "labels.csv", index=False)
    return {
        "classes": ["CN", "AD"], "path": str(root), "table": {"file": str(folder / "labels.csv")},
        "volume": {"range": [0.2, 0.8], "step": 2, "frame": None},
    }  # fmt: skip


def slice_file(path: Path, values: np.ndarray, height: float, series: str, **tags: Any) -> None:
    """An uncompressed 16-bit CT slice."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID, dataset.PatientID = series, "Doe^Jane"
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, height]
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    dataset.PixelData = values.astype(np.uint16).tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def dicom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """Two series whose file names are not in the order of positions."""
    for number, name in enumerate(("cases/one", "cases/two")):
        series = generate_uid(entropy_srcs=[name])
        for index, height in enumerate((5.0, -2.5, 0.0, 2.5)):
            values = np.random.default_rng([number, index]).integers(900, 1300, (16, 16))
            slice_file(folder / "series" / name / f"IM{index}", values, height, series)
    table = pd.DataFrame(
        {"path": ["cases/one", "cases/two"], "label": ["benign", "malignant"], "patient": ["1", "2"]}
    )
    table.to_csv(folder / "series" / "labels.csv", index=False)
    return {
        "classes": ["benign", "malignant"], "path": str(folder / "series"), "table": {"file": "labels.csv"},
        "ordered": False,
    }  # fmt: skip


SAMPLES: dict[str, Callable[[Path, pytest.MonkeyPatch], Block]] = {
    make.__name__: make
    for make in (phantom, archive, oct2017, figshare_tumor, medmnist, huggingface, kaggle, nifti, dicom)
}
