"""Files outside the pipeline, which DVC does not watch: the data, weights, and unlabelled images of params.yaml.

The stages that read them record a hash of their content. `make repro` compares it before it asks DVC.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from medrobust.core.content import content_hash
from medrobust.core.params.yaml_file import read_params
from medrobust.data.sources.fetch import expand_path

#: (what it is, its path, its hash when it was read)
Recorded = Iterator[tuple[str, str, str]]


def read_by_download(out: Path, params: Mapping[str, Any]) -> Recorded:
    """(key in params.yaml, path, hash) of what was copied into the raw data."""
    source = out / "source.json"
    for key, known in (json.loads(source.read_text(encoding="utf-8")) if source.is_file() else {}).items():
        value: Any = params
        for part in key.split(".") if key.startswith("data.") else ():
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str):  # else params.yaml names other data by now, which DVC sees
            yield key, expand_path(value), known


def read_by_settings(out: Path, _: Mapping[str, Any]) -> Recorded:
    """(path, path, hash) of files of weights and folders of unlabelled images."""
    found = {}
    for path in out.glob("*/*.json"):
        found.update(json.loads(path.read_text(encoding="utf-8")).get("files", {}))
    for path, known in found.items():
        yield path, str(Path(path).expanduser()), known


def read_by_prepare_external(out: Path, params: Mapping[str, Any]) -> Recorded:
    """The same as `read_by_download` of an external data set, whose name is that of the out."""
    return read_by_download(out, {"data": params["external"]["sets"].get(out.name, {})})


#: The stages that read such files -> what their out says of them.
READERS: dict[str, Callable[[Path, Mapping[str, Any]], Recorded]] = {
    "download": read_by_download, "settings": read_by_settings, "prepare_external": read_by_prepare_external,
}  # fmt: skip


def reads_outside(stage: str) -> bool:
    """Whether a stage or cell (`prepare_external@site_c`) reads files outside the pipeline."""
    return stage.partition("@")[0] in READERS


def edited(stage: str, out: Path) -> tuple[list[str], list[str]]:
    """What a stage has read from outside the pipeline: what was edited since, and what is not on this machine."""
    changed, absent = [], []
    for name, path, known in READERS[stage.partition("@")[0]](out, read_params(Path("params.yaml"))):
        if not Path(path).exists():
            absent.append(name)
        elif content_hash(path) != known:
            changed.append(name)
    return changed, absent


def named_files(folder: Path) -> Iterator[str]:
    """Texts in the values of params.yaml that are paths of files or folders, with variables expanded.

    Args:
        folder: top folder of the repository; relative paths start there. It is not yielded itself.
    """
    for text in map(expand_path, _texts(read_params(folder / "params.yaml"))):
        with suppress(OSError):  # a title may be longer than a path can be
            if folder / text != folder and (folder / text).exists():
                yield text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
