"""Write a preset as params.yaml: `make preset NAME=smoke` (docs/experiments.md, Presets).

presets/default.yaml has every key. Any other preset is an overlay: it has only the keys that differ from the
preset that it extends (`extends: NAME`, by default `default`), each with the reason as a comment.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from medrobust.core.errors import UserError
from medrobust.core.params.schema import check_params, load_params
from medrobust.core.params.yaml_file import parse_params
from tools.artifacts import write_artifacts
from tools.git_calls import file_at

ROOT = Path(__file__).resolve().parent.parent
PRESETS, BASE = ROOT / "presets", "default"
#: Mappings whose keys are the user's own names: an overlay replaces them whole. It is merged into all others.
NAMED = (
    "models", "attacks.suites", "detect.detectors", "detect.suites", "data.phantom.patients", "data.labels",
    "data.table", "split.merge", "external.sets", "augment.probabilities",
)  # fmt: skip
#: Column of the comments in params.yaml.
COLUMN = 30


def names(folder: Path = PRESETS) -> list[str]:
    """The names of all presets."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


@cache
def render(name: str = BASE, folder: Path = PRESETS, overlays: tuple[str, ...] = ()) -> str:
    """The text of params.yaml under a preset: all keys, the comments of the base, in the form that DVC writes.

    `overlays` are further texts of overlays, merged after the preset.

    Raises:
        UserError: the preset or one that it extends does not exist, a preset extends itself, an overlay has a key
            that the base does not have, or the file is not valid YAML.
    """
    chain = _chain(name, folder)
    params = parse_yaml_for_update(_read(BASE, folder), f"{BASE}.yaml")
    for each in reversed(chain[:-1]):
        # A comment line between the keys of an overlay is a reason, which stays there.
        lines = [line for line in _read(each, folder).splitlines() if not line.lstrip().startswith("#")]
        overlay = parse_yaml_for_update("\n".join(lines), f"{each}.yaml")
        overlay.pop("extends", None)
        _merge(params, overlay, f"presets/{each}.yaml", "")
    for text in overlays:
        _merge(params, parse_yaml_for_update(text, "overlay"), f"a change of {name}", "")
    _set_style(params, in_list=False)
    head = [] if name == BASE else _head(_read(name, folder))
    return _spaced([*head, *dumps_yaml(params).splitlines()])


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """One line per key whose value differs: `key: old -> new`; one for a block that only one of both has."""
    for key in {**old, **new}:
        path = f"{prefix}{key}"
        if key not in new:
            yield f"{path}: removed"
        elif key not in old:
            yield f"{path}: added, {_shown(new[key])}"
        elif isinstance(old[key], dict) and isinstance(new[key], dict):
            yield from differences(old[key], new[key], f"{path}.")
        elif old[key] != new[key]:
            yield f"{path}: {_shown(old[key])} -> {_shown(new[key])}"


def write(name: str, path: Path, folder: Path = PRESETS, *, force: bool = False) -> list[str]:
    """Write a preset as params.yaml.

    Args:
        name: of the preset.
        path: of params.yaml.
        folder: of the presets.
        force: whether edits that are saved nowhere may be overwritten.

    Returns:
        What changed, as `differences` lists it.

    Raises:
        UserError: see `render`; the preset does not make valid parameters, or there are unsaved edits.
    """
    text, where = render(name, folder), f"presets/{name}.yaml"
    new = parse_params(text, where)
    check_params(new, where)
    old: dict[str, Any] = {}
    if path.is_file():
        current = path.read_text(encoding="utf-8", errors="replace")
        saved = {file_at("HEAD", path), *(render(each, folder) for each in names(folder))}
        if current not in saved and not force:
            remedy = f"Commit or copy it, or overwrite it with `make preset NAME={name} FORCE=1`"
            raise UserError(str(path), "has edits that are neither committed nor a preset", remedy)
        try:
            old = parse_params(current, path.name)
        except UserError as error:  # FORCE=1 may replace a broken file
            sys.stderr.write(f"{error}\n")
    path.write_text(text, encoding="utf-8")
    return list(differences(old, new))


def _chain(name: str, folder: Path) -> list[str]:
    """The preset, the one that it extends, and so on; the base is the last."""
    chain = [name]
    while chain[-1] != BASE:
        where = f"presets/{chain[-1]}.yaml"
        parent = parse_params(_read(chain[-1], folder), where).get("extends", BASE)
        if parent in chain:
            remedy = "Delete one `extends` of this cycle"
            raise UserError(f"{where}: extends", f"a cycle: {' -> '.join([*chain, parent])}", remedy)
        chain.append(parent)
    return chain


def _read(name: str, folder: Path) -> str:
    if name not in names(folder):
        remedy = f"Use `make preset NAME=...` with one of: {', '.join(names(folder))}"
        raise UserError("presets", f"there is no preset {name!r}", remedy)
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


def _merge(base: CommentedMap, overlay: CommentedMap, where: str, prefix: str) -> None:
    """Put the values of an overlay into the base; the comments of the base stay."""
    for key, value in overlay.items():
        path = f"{prefix}{key}"
        if key not in base:
            raise UserError(f"{where}: {path}", "unknown key", f"Known here: {', '.join(map(str, base))}")
        if path not in NAMED and isinstance(value, CommentedMap) and isinstance(base[key], CommentedMap):
            _merge(base[key], value, where, f"{path}.")
            continue
        if isinstance(value, CommentedMap):
            _explain(value, dict(_comments(base[key])))
        elif key in base.ca.items:  # what follows the comment of a list with lines of its own goes with the lines
            base.ca.items[key][3] = None
        base[key] = value


def _comments(block: Any) -> Iterator[tuple[str, str]]:
    """(key, comment) of all keys below a mapping."""
    for key, value in block.items() if isinstance(block, CommentedMap) else ():
        yield from _comments(value)
        if comment := _comment(block, key):
            yield key, comment


def _explain(block: CommentedMap, comments: dict[str, str]) -> None:
    """Give the first key of each name the comment that it has in the base, unless it has one of its own."""
    for key, value in block.items():
        comment = _comment(block, key) or comments.get(key)
        comments.pop(key, None)
        block.ca.items.pop(key, None)
        if comment:
            block.yaml_add_eol_comment(comment, key, column=COLUMN)
        if isinstance(value, CommentedMap):
            _explain(value, comments)


def _comment(block: CommentedMap, key: Any) -> str | None:
    """The comment at the end of a key's line."""
    token = block.ca.items.get(key, [None] * 4)[2]
    return token.value.split("\n")[0] if token and token.value.startswith("#") else None


def _set_style(node: Any, in_list: bool) -> bool:
    """Put each list on lines of its own, as DVC writes it, and each mapping that is in a list or has one.

    Returns:
        Whether the node is such a list or mapping.
    """
    if isinstance(node, CommentedSeq):
        for value in node:
            _set_style(value, in_list=True)
        lines = bool(node)
    elif isinstance(node, CommentedMap):
        parts = [_set_style(value, in_list) for value in node.values()]
        lines = bool(node) and (in_list or any(parts))
    else:
        return False
    if lines:
        node.fa.set_block_style()
    return lines


def _head(text: str) -> list[str]:
    """The comment lines at the top of a preset."""
    return list(takewhile(lambda line: line.startswith("#"), text.splitlines()))


def _spaced(lines: list[str]) -> str:
    """The text with a blank line before each key at the top level, and none elsewhere."""
    kept = [line for line in lines if line.strip()]
    return "".join(f"\n{line}\n" if line[0] not in " #-" else f"{line}\n" for line in kept)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def main() -> None:
    """Write the preset that the command line names, and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="", help=f"one of: {', '.join(names())}")
    parser.add_argument("--force", action="store_true", help="overwrite edits that are saved nowhere")
    args = parser.parse_args()
    if not args.name:
        sys.stdout.write("".join(f"make preset NAME={name}\n" for name in names()))
        return
    changes = write(args.name, Path("params.yaml"), force=args.force)
    write_artifacts(load_params())
    last = f"params.yaml: preset {args.name}, {len(changes)} values changed"
    sys.stdout.write("\n".join([*changes, last]) + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
