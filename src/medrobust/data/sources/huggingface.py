"""Parquet data sets with an image and a label column, from the Hugging Face Hub or local files."""

import json
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pyarrow.parquet as pq
from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]
from pyarrow import ArrowInvalid

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.params.sources import TableParams
from medrobust.core.records import read_json
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import copy_or_download, expand_path
from medrobust.data.sources.files import SharedCache, copy_folder
from medrobust.data.sources.labels import SPLIT_NAMES, as_text, manifest_columns, wanted_columns
from medrobust.data.sources.tables import parquet_columns

#: Branch with the Hub's own Parquet conversion of other formats.
CONVERTED = "refs/convert/parquet"


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Download the Parquet files of the data set `data.path` (owner/name), or copy a local file or folder.

    `data.table.file` selects among the files on the Hub (for example `data/*.parquet`). The Hub's client caches
    files and resumes interrupted downloads.

    Raises:
        UserError: the data set does not exist or has no Parquet file, or the download fails.
    """
    if data.path is None or Path(expand_path(data.path)).exists() or "$" in data.path:
        return copy_or_download(data, folder, seed)
    pattern = data.table.file if data.table and data.table.file else "*.parquet"
    where = f"huggingface: {data.path}"
    try:
        for revision in (None, CONVERTED):
            info = huggingface_hub.HfApi().dataset_info(data.path, revision=revision)
            if any(Path(file.rfilename).match(pattern) for file in info.siblings or []):
                break
        else:
            remedy = "Set data.table.file to a pattern of its Parquet files"
            raise UserError(where, f"contains no file {pattern}", remedy)
        downloaded = huggingface_hub.snapshot_download(
            data.path, repo_type="dataset", revision=info.sha, allow_patterns=pattern
        )
    except (OSError, HTTPError, HFValidationError) as error:
        remedy = "Check the name (owner/name) and the network; set HF_TOKEN for gated data sets"
        raise UserError(where, f"cannot be downloaded ({error})", remedy) from None
    copy_folder(Path(downloaded), folder / "files")
    licence = getattr(info.card_data, "license", None)
    return {"file": "files", "name": data.path, "revision": info.sha or "", "licence": str(licence or "")}


def listing(data: DataParams, folder: Path) -> Listing:
    """List the rows of the Parquet files; the split comes from file names (`train-00000-of-00001.parquet`).

    Raises:
        UserError: a file is damaged or lacks the image or label column, or a label is not a class.
    """
    facts = read_json(folder / "source.json")
    root = folder / facts["file"]
    paths = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
    paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not paths:
        remedy = "Set data.path to a .parquet file or a folder of them"
        raise UserError(str(root), "contains no Parquet file", remedy)
    block = data.table or TableParams()
    parts, left_out, blocks = [], Counter[str](), dict[str, tuple[Path, int]]()
    for path in paths:
        name = path.relative_to(folder).as_posix()
        frame, row_groups = _rows(path, name, block, data.groups)
        rows = manifest_columns(frame, data, name)
        split = _split_of(path) if not (rows.table["published_split"] != "").any() else None
        parts.append(rows.table.assign(published_split=split) if split is not None else rows.table)
        left_out.update(rows.left_out)
        blocks |= {f"{name}#{group}": (path, group) for group in row_groups}
    table = pd.concat(parts)
    table = table.assign(id=table.index).reset_index(drop=True)
    release = Release()
    if "name" in facts:
        citation = f"Hugging Face data set {facts['name']}, revision {facts['revision']}"
        url = f"https://huggingface.co/datasets/{facts['name']}"
        release = Release(facts["licence"] or "unknown", citation, url, "revision on the Hub")
    read = partial(_read, SharedCache(partial(_load, blocks, block.image)))
    return Listing(table, read, release, left_out=dict(left_out))


def _rows(path: Path, name: str, table: TableParams, groups: Iterable[str]) -> tuple[pd.DataFrame, range]:
    """Read the columns of `table`, indexed by `file#group#row`; numbers of a ClassLabel column become names."""
    file = _open(path)
    columns = file.schema_arrow.names
    if table.image not in columns:
        found = f"no column {table.image!r}; its columns are {', '.join(columns)}"
        raise UserError(name, found, "Set data.table.image to the column of images")
    frame = parquet_columns(file, name, *wanted_columns(table, groups))
    for column, classes in _class_names(file).items():
        if column in frame:
            names = {str(number): label for number, label in enumerate(classes)}
            frame[column] = [names.get(text, text) for text in as_text(frame[column])]
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    frame.index = pd.Index([f"{name}#{group}#{row}" for group, size in enumerate(sizes) for row in range(size)])
    return frame, range(file.num_row_groups)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise UserError(str(path), f"truncated or not a Parquet file ({error})", "Download it again") from None


def _class_names(file: pq.ParquetFile) -> dict[str, list[str]]:
    """Class names of ClassLabel columns, from the metadata that the `datasets` library stores in the schema."""
    metadata = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(metadata)["info"]["features"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    kinds = {column: feature for column, feature in features if isinstance(feature, dict)}
    return {name: kind["names"] for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"}


def _split_of(path: Path) -> str:
    """The published split with which the name of a file or its folder begins; empty if there is none."""
    for part in (path.name, path.parent.name):
        word = part.split(".")[0].split("-")[0].split("_")[0].lower()
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return ""


def _load(blocks: dict[str, tuple[Path, int]], image: str, key: str) -> list[Any]:
    path, group = blocks[key]
    return list(_open(path).read_row_group(group, columns=[image])[image].to_pylist())


def _read(groups: SharedCache[list[Any]], name: str) -> bytes:
    key, _, row = name.rpartition("#")
    cell = groups(key)[int(row)]
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if content is None and isinstance(cell, dict) and cell.get("path"):
        raise ValueError(f"the cell holds only the path {cell['path']}; the image is in another file")
    if not isinstance(content, bytes):
        raise ValueError(f"the cell contains {type(content).__name__}, not image bytes")
    return content
