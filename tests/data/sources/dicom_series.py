"""Two DICOM series as test data."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom

from tests.data.sources.samples import slice_file

HEIGHTS = (5.0, -2.5, 0.0, 2.5)


def values(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 2500, (16, 16))


def two_series(tmp_path: Path) -> dict[str, Any]:
    """Two series of four slices; the table has no patients."""
    for case, name in enumerate(("one", "two")):
        for index, height in enumerate(HEIGHTS):
            path = tmp_path / "series" / name / f"IM{index}.dcm"
            slice_file(path, values(10 * case + index), height, f"1.2.{case + 1}", PatientID=f"Doe^{name}")
    table = pd.DataFrame({"path": ["one", "two/"], "label": ["benign", "malignant"]})
    table.to_csv(tmp_path / "labels.csv", index=False)
    return {"source": "dicom", "path": str(tmp_path / "series"), "classes": ["benign", "malignant"],
            "table": {"file": str(tmp_path / "labels.csv")}, "image_size": 16}  # fmt: skip


def change_tags(block: dict[str, Any], path: Path | None = None, **tags: Any) -> Path:
    """Change tags of a file, by default of the second of the first series; None deletes one."""
    path = path or Path(block["path"]) / "one" / "IM1.dcm"
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path)
    return path
