"""One picture in several file formats: the audit sees equal pixels, from the files to the verdict."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medrobust.core.params.data import AuditParams
from medrobust.data.audit.audit_split import audit_split
from medrobust.data.prepare import download, prepare
from medrobust.data.split import make_split
from medrobust.data.store import ImageStore
from tests.data.stores import split_params

FOLDERS = ("train/Non Demented", "train/Mild_Demented", "val/Non Demented", "test/Non Demented")


def test_a_picture_saved_in_another_format_is_a_leak(params: Any, tmp_path: Path) -> None:
    top = tmp_path / "raw images"
    for number, name in enumerate(FOLDERS):
        (top / name).mkdir(parents=True)
        for index in range(5):
            rng = np.random.default_rng([number, index])
            Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(
                top / name / f"{number} {index}.png"
            )
    suffixes = ("bmp", "tif", "gif", "pgm", "jp2")
    for index, suffix in enumerate(suffixes):
        with Image.open(top / "test" / "Non Demented" / f"3 {index}.png") as image:
            image.save(top / "train" / "Mild_Demented" / f"copy.{suffix}")
    data = params(path=str(top))
    download(data, tmp_path / "raw", seed=0)
    prepare(data, tmp_path / "raw", tmp_path / "prepared")
    store = ImageStore.open(tmp_path / "prepared")
    table = make_split(store.manifest, store.header, split_params(strategy="published"), 0)
    rules = AuditParams(near_duplicate=0.999, same_patient=0.99, on_leak="warn")
    result = audit_split(store, table, rules)
    assert result.metrics["verdict"] == "leaking"
    assert result.metrics["reasons"][0] == "5 of 5 test images have an exact copy in train or val"
    assert result.pairs["kind"].tolist() == ["equal pixels"] * 5
    assert set(result.pairs["other_id"]) == {f"train/Mild_Demented/copy.{suffix}" for suffix in suffixes}
