"""Parquet data sets, local and from the Hugging Face Hub."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import HFValidationError
from PIL import Image

from medrobust.core.errors import UserError
from tests.data.sources.conftest import Make
from tests.data.sources.samples import encoded, parquet

Sample = Callable[[str], dict[str, Any]]


def test_images_match_their_labels_over_row_groups_and_files(sample: Sample, make: Make) -> None:
    store = make(sample("huggingface"), image_size=16)
    assert store.manifest["published_split"].tolist() == ["test"] * 5 + ["train"] * 5
    assert store.manifest["label"].tolist()[:4] == [
        "MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented"
    ]  # fmt: skip
    for row, seed in enumerate([*range(10, 15), *range(5)]):
        expected = np.asarray(Image.open(io.BytesIO(encoded(seed, kind="JPEG"))))
        assert np.array_equal(store.images[row], expected)


def test_plain_bytes_other_columns_and_patients(make: Make, tmp_path: Path) -> None:
    table = pd.DataFrame({"scan": [encoded(n) for n in range(4)], "dx": ["a", "b"] * 2, "who": [1, 2, 3, 4]})
    table.to_parquet(tmp_path / "mine.parquet")
    columns = {"image": "scan", "label": "dx", "patient": "who"}
    block = {"source": "huggingface", "classes": ["a", "b"], "path": str(tmp_path / "mine.parquet")}
    store = make({**block, "table": columns})
    assert store.manifest["patient"].tolist() == ["1", "2", "3", "4"]
    assert store.manifest["published_split"].tolist() == [""] * 4
    with pytest.raises(UserError, match=r"no column 'image'; its columns are scan, dx, who.*data\.table\.image"):
        make(block)
    with pytest.raises(UserError, match=r"no column 'label'; its columns are scan, dx, who"):
        make({**block, "table": {"image": "scan"}})


def test_a_cell_without_an_image_is_a_bad_image(make: Make, tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", [encoded(0), None, encoded(2), b"text"], [0, 1, 1, 0], ["a", "b"])
    block = {"source": "huggingface", "classes": ["a", "b"], "path": str(tmp_path / "a.parquet")}
    with pytest.raises(UserError, match=r"not image bytes"):
        make(block)
    skipped = make(block, on_bad_image="skip").header.skipped
    assert [row["reason"] for row in skipped] == ["the cell contains NoneType, not image bytes", "not an image"]


def test_other_columns_and_missing_labels_are_no_crash(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path, [encoded(n) for n in range(4)], [0, 1, None, -1], ["a", "b"], boxes=[[1], [], [2], []])  # type: ignore[list-item]
    block = {"source": "huggingface", "classes": ["a", "b"], "path": str(path)}
    with pytest.raises(UserError, match=r"'' \(1, first: a\.parquet#1#0\), '-1' \(1, first: a\.parquet#1#1\)"):
        make(block)
    assert make(block, labels={"": None, "-1": None}).header.left_out == {"": 1, "-1": 1}


@pytest.mark.parametrize("metadata", [b"", b"{", b"[]", b'{"info": null}', b'{"info": {"features": [1]}}'])
def test_a_schema_without_class_names_is_read(metadata: bytes, make: Make, tmp_path: Path) -> None:
    table = pa.table({"image": [encoded(n) for n in range(4)], "label": ["a", "b"] * 2})
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "a.parquet")
    store = make({"source": "huggingface", "classes": ["a", "b"], "path": str(tmp_path / "a.parquet")})
    assert store.manifest["label"].tolist() == ["a", "b"] * 2


def test_labels_in_lists_and_images_beside_the_file_are_named(make: Make, tmp_path: Path) -> None:
    block = {"source": "huggingface", "classes": ["a", "b"], "path": str(tmp_path / "a.parquet")}
    pq.write_table(pa.table({"image": [encoded(0), encoded(1)], "label": [["a"], ["b"]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: the cells of the column 'label' are list<"):
        make(block)
    cells = [{"bytes": None, "path": "img/0.png"}, {"bytes": None, "path": "img/1.png"}]
    pq.write_table(pa.table({"image": cells, "label": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"holds only the path img/0\.png; the image is in another file"):
        make(block)


def test_a_truncated_file_and_an_empty_folder_are_reported(sample: Sample, make: Make, tmp_path: Path) -> None:
    block = sample("huggingface")
    path = next(Path(block["path"]).iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"truncated or not a Parquet file"):
        make(block)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"contains no Parquet file"):
        make({**block, "path": str(tmp_path / "empty")})


class Hub:
    """A fake Hub: branches, and the files on each."""

    def __init__(self, branches: dict[str | None, list[str]], folder: str) -> None:
        self.branches, self.folder, self.requests = branches, folder, list[Any]()

    def dataset_info(self, name: str, revision: str | None = None) -> Any:
        if "/" not in name:
            raise HFValidationError("no name")
        files = [SimpleNamespace(rfilename=file) for file in self.branches[revision]]
        return SimpleNamespace(siblings=files, sha=f"sha of {revision}", card_data=SimpleNamespace(license="mit"))

    def snapshot_download(self, name: str, **options: Any) -> str:
        self.requests.append((name, options))
        return self.folder


@pytest.fixture
def hub(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub with the sample on its main branch."""
    site = Hub({None: ["README.md", "data/train-0.parquet"]}, sample("huggingface")["path"])
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: site)
    monkeypatch.setattr("huggingface_hub.snapshot_download", site.snapshot_download)
    return site


BLOCK = {"source": "huggingface", "path": "Falah/Alzheimer_MRI",
         "classes": ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"]}  # fmt: skip


def test_files_of_one_revision_are_downloaded(hub: Hub, make: Make) -> None:
    header = make(BLOCK).header
    assert hub.requests == [
        (
            "Falah/Alzheimer_MRI",
            {"repo_type": "dataset", "revision": "sha of None", "allow_patterns": "*.parquet"},
        )
    ]
    assert (header.licence, header.images) == ("mit", 10)
    assert header.url == "https://huggingface.co/datasets/Falah/Alzheimer_MRI"
    assert header.citation == "Hugging Face data set Falah/Alzheimer_MRI, revision sha of None"


def test_other_formats_are_read_from_the_converted_branch(hub: Hub, make: Make) -> None:
    hub.branches = {None: ["images.zip"], "refs/convert/parquet": ["default/train/0000.parquet"]}
    make(BLOCK)
    assert hub.requests[0][1]["revision"] == "sha of refs/convert/parquet"


def test_errors_of_the_hub_are_reported(hub: Hub, make: Make) -> None:
    hub.branches = {None: ["a.zip"], "refs/convert/parquet": []}
    with pytest.raises(UserError, match=r"huggingface: Falah/Alzheimer_MRI: contains no file \*\.parquet"):
        make(BLOCK)
    with pytest.raises(UserError, match=r"huggingface: nobody: cannot be downloaded \(no name\).*HF_TOKEN"):
        make({**BLOCK, "path": "nobody"})
