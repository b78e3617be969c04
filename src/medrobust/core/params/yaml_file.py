"""params.yaml as plain values, read as DVC reads it: by ruamel.yaml, under the rules of YAML 1.2.

DVC also writes the file (`dvc exp run -S`). A parser of YAML 1.1, such as PyYAML, reads some of what DVC writes
differently: an unquoted `no` becomes False, and `1e-3` becomes text.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.tokens import AliasToken, AnchorToken

from medrobust.core.errors import UserError


def read_params(path: Path | str = "params.yaml") -> dict[str, Any]:
    """Read a file of parameters without checking its keys; `schema.load_params` checks them.

    Raises:
        UserError: the file is missing, or see `parse_params`.
    """
    path = Path(path)
    try:
        return parse_params(path.read_text(encoding="utf-8"), path.name)
    except FileNotFoundError:
        remedy = "Run from the top folder of the repository, or write one with `make preset NAME=default`"
        raise UserError(str(path), "no such file", remedy) from None
    except UnicodeDecodeError:
        raise UserError(str(path), "not encoded as UTF-8", "Save it as UTF-8") from None


def parse_params(text: str, where: str) -> dict[str, Any]:
    """The values in the YAML text of the file `where`; an empty file has no keys.

    Raises:
        UserError: the text is not valid YAML, is not a mapping, or has a duplicate key, a tab in the indentation,
            an anchor, an alias, or a value with `${`.
    """
    try:
        _refuse_anchors(text, where)
        content = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        raise _explain(error, text, where) from None
    except YAMLError as error:
        raise UserError(where, f"not valid YAML ({error})", "Delete the character named above") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(where, f"holds a {type(content).__name__}", "Write `key: value` lines")
    _refuse_interpolation(content, where, ())
    return content


def _refuse_anchors(text: str, where: str) -> None:
    """Refuse `&name` and `*name`: a change that DVC makes to one position would reach every other one."""
    if "&" not in text and "*" not in text:
        return
    for token in YAML(typ="safe", pure=True).scan(text):
        if isinstance(token, AnchorToken | AliasToken):
            sign = "&" if isinstance(token, AnchorToken) else "*"
            remedy = "Write the value out at each position; put quotes around text that starts with & or *"
            found = f"`{sign}{token.value}`: anchors and aliases are not supported"
            raise UserError(f"{where}, line {token.start_mark.line + 1}", found, remedy)


def _refuse_interpolation(value: Any, where: str, path: tuple[Any, ...]) -> None:
    """Refuse `${`, which DVC would replace by the value of another key."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse_interpolation(inner, where, (*path, key))
    elif isinstance(value, str) and "${" in value:
        key = ".".join(map(str, path))
        remedy = "DVC reads `${` as a reference to another key. Use $NAME for an environment variable"
        raise UserError(f"{where}: {key}", f"got {value!r}", remedy)


def _explain(error: MarkedYAMLError, text: str, where: str) -> UserError:
    """The parser's error with its line, and a remedy for the common ones."""
    mark, problem, line = error.problem_mark, str(error.problem or error.context), ""
    if mark is not None:
        where = f"{where}, line {mark.line + 1}"
        line = [*text.splitlines(), ""][mark.line]
    if isinstance(error, DuplicateKeyError):
        key = problem.split('"')[1] if '"' in problem else problem
        return UserError(where, f"the key {key!r} is set twice", "Delete one of the two lines")
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return UserError(where, "the indentation has a tab", "Use spaces instead")
    remedy = "Fix the line named above; put quotes around text that has `: ` or starts with @ ` % & or *"
    return UserError(where, f"not valid YAML ({problem})", remedy)
