"""Parquet data sets with an image and a label column, from the Hugging Face hub or local."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.params.sources import TableParams
from medrobust.core.records import read_json
from medrobust.data.sources.base import Listing
from medrobust.data.sources.fetch import bring, expand
from medrobust.data.sources.files import Shared, copy_folder
from medrobust.data.sources.labels import SPLITS, tidy

if TYPE_CHECKING:
    import pyarrow.parquet as pq

#: Branch to which the hub converts data sets that are no Parquet.
CONVERTED = "refs/convert/parquet"


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Fetch the Parquet files of the data set `data.path` (owner/name), or copy a local file or folder.

    `data.table.file` chooses among the hub's files (`data/*.parquet`). They pass through the cache of the hub's
    own client, which takes up what broke off.

    Raises:
        UserError: no such data set, or it has no Parquet file.
    """
    if data.path is None or Path(expand(data.path)).exists() or "$" in data.path:
        return bring(data, folder)
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    pattern = data.table.file if data.table and data.table.file else "*.parquet"
    where = f"huggingface: {data.path}"
    try:
        for revision in (None, CONVERTED):
            info = HfApi().dataset_info(data.path, revision=revision)
            if any(Path(file.rfilename).match(pattern) for file in info.siblings or []):
                break
        else:
            raise UserError(where, f"holds no file {pattern}", "Name its Parquet files by data.table.file")
        fetched = snapshot_download(data.path, repo_type="dataset", revision=info.sha, allow_patterns=pattern)
    except (OSError, HTTPError, HFValidationError) as error:
        remedy = "Check the name (owner/name) and the network; gated sets need HF_TOKEN"
        raise UserError(where, f"cannot be fetched ({error})", remedy) from None
    copy_folder(Path(fetched), folder / "files")
    licence = getattr(info.card_data, "license", None)
    return {"file": "files", "name": data.path, "revision": info.sha or "", "licence": str(licence or "")}


def listing(data: DataParams, folder: Path) -> Listing:
    """One row a row of the Parquet files; the split is in the files' names (`train-00000-of-00001.parquet`).

    Raises:
        UserError: a file is damaged or lacks the image or label column, or labels that are no class.
    """
    facts = read_json(folder / "source.json")
    place = folder / facts["file"]
    paths = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not paths:
        raise UserError(str(place), "holds no Parquet file", "Give a .parquet file or a folder of them")
    image = (data.table or TableParams()).image
    parts, left_out, blocks = [], dict[str, int](), dict[str, tuple[Path, int]]()
    for path in paths:
        name = path.relative_to(folder).as_posix()
        frame, groups = _rows(path, name, image)
        found = tidy(frame, data, name)
        split = _split_of(path) if not (found.table["published_split"] != "").any() else None
        parts.append(found.table.assign(published_split=split) if split is not None else found.table)
        left_out = {
            key: left_out.get(key, 0) + found.left_out.get(key, 0) for key in {**left_out, **found.left_out}
        }
        blocks |= {f"{name}#{group}": (path, group) for group in groups}
    table = pd.concat(parts)
    table = table.assign(id=table.index).reset_index(drop=True)
    return Listing(
        table,
        partial(_read, Shared(partial(_load, blocks, image))),
        licence=facts.get("licence") or "unknown",
        citation=f"Hugging Face data set {facts['name']}, revision {facts['revision']}"
        if "name" in facts
        else "unknown",
        url=f"https://huggingface.co/datasets/{facts['name']}" if "name" in facts else "",
        verified="revision of the hub" if "name" in facts else "nothing",
        left_out=left_out,
    )


def _rows(path: Path, name: str, image: str) -> tuple[pd.DataFrame, range]:
    """Every column but the images, indexed by `file#group#row`; class numbers become names."""
    file = _open(path)
    columns = file.schema_arrow.names
    if image not in columns:
        found = f"no column {image!r}; its columns are {', '.join(columns)}"
        raise UserError(name, found, "Name the image column in data.table.image")
    plain = [field.name for field in file.schema_arrow if not _is_nested(field.type) and field.name != image]
    frame = file.read(columns=plain).to_pandas()
    for column, names in _class_names(file).items():
        if column in frame:
            frame[column] = [names[int(n)] if 0 <= n < len(names) else str(n) for n in frame[column]]
    groups = range(file.num_row_groups)
    sizes = [file.metadata.row_group(group).num_rows for group in groups]
    frame.index = pd.Index([f"{name}#{group}#{row}" for group in groups for row in range(sizes[group])])
    return frame, groups


def _open(path: Path) -> "pq.ParquetFile":
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    try:
        return pq.ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise UserError(str(path), f"truncated or no Parquet file ({error})", "Fetch it again") from None


def _is_nested(kind: Any) -> bool:
    return bool(kind.num_fields) or str(kind).startswith(("binary", "large_binary"))


def _class_names(file: "pq.ParquetFile") -> dict[str, list[str]]:
    """Columns of the type ClassLabel, from the note that the `datasets` library leaves in the schema."""
    note = (file.schema_arrow.metadata or {}).get(b"huggingface")
    features = json.loads(note)["info"]["features"] if note else {}
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _split_of(path: Path) -> str:
    """The published split that a file's name, or its folder's, begins with."""
    for part in (path.name, path.parent.name):
        word = part.split(".")[0].split("-")[0].split("_")[0].lower()
        if word in SPLITS:
            return SPLITS[word]
    return ""


def _load(blocks: dict[str, tuple[Path, int]], image: str, key: str) -> list[Any]:
    path, group = blocks[key]
    column: list[Any] = _open(path).read_row_group(group, columns=[image])[image].to_pylist()
    return column


def _read(groups: Shared[list[Any]], name: str) -> bytes:
    key, _, row = name.rpartition("#")
    cell = groups(key)[int(row)]
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise ValueError(f"the cell holds no image bytes, but {type(content).__name__}")
    return content
