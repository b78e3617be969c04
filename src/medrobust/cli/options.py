"""What the commands share: options, the model, messages, and where answers go."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from medrobust.core.errors import UserError
from medrobust.core.records import atomic_file
from medrobust.core.text import one_line

if TYPE_CHECKING:
    from medrobust.inference.loaded import LoadedModel

T = TypeVar("T")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

#: A path that is checked where it is used, so that one bad file does not stop the others.
PATH = click.Path(path_type=Path)
MODEL: Decorator = click.argument("model", type=PATH)
FILES: Decorator = click.argument("files", type=PATH, nargs=-1, required=True)
DEVICE: Decorator = click.option("--device", help="cpu, cuda or cuda:N. Default: a GPU if there is one.")
OUT: Decorator = click.option("--out", type=PATH, help="Write the answers to this file instead of stdout.")
COLOUR: Decorator = click.option(
    "--colour-as-grey", is_flag=True, help="Convert pictures in colour for a model of grey images."
)
SEED: Decorator = click.option("--seed", type=int, default=0, show_default=True, help="Of random draws.")


class Fraction(click.ParamType[float]):
    """A number above 0, or a fraction such as 8/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from medrobust.core.params.base import parse_fraction

        try:
            return float(parse_fraction(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def say(message: str) -> None:
    """A line on stderr."""
    click.echo(one_line(message), err=True)


def opened(model: Path, guard: str | None, detector: str | None, device: str | None) -> "LoadedModel":
    """The model of a command; `guard` is a folder, `none`, or None for the model's own."""
    from medrobust.core.runtime import device as chosen
    from medrobust.inference.loaded import open_model

    return open_model(model, False if guard == "none" else guard, detector, chosen(device))


def bar(items: Iterable[T], desc: str, total: int | None = None) -> Iterable[T]:
    """The items, with a progress bar if stderr is a terminal."""
    from tqdm import tqdm

    shown: Iterable[T] = tqdm(items, desc=desc, total=total, unit=" images", disable=None, leave=False)
    return shown


@contextmanager
def library_output_on_stderr() -> Iterator[None]:
    """Print on stderr what the library would print on stdout, which is for answers."""
    with redirect_stdout(sys.stderr):
        yield


class Answers:
    """Writes rows as CSV, or as JSON with one object per line."""

    def __init__(self, stream: IO[str], columns: Sequence[str], *, as_json: bool) -> None:
        self.stream, self.table = stream, None
        if not as_json:
            self.table = csv.DictWriter(stream, columns, lineterminator="\n")
            self.table.writeheader()

    def write(self, row: dict[str, Any]) -> None:
        """Write a row; in CSV, a mapping becomes one column per key, and what is unknown stays empty."""
        if self.table is None:
            self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            return
        flat: dict[str, Any] = {}
        for name, value in row.items():
            cells = {f"p_{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
            flat |= {key: str(cell).lower() if isinstance(cell, bool) else cell for key, cell in cells.items()}
        self.table.writerow(flat)


@contextmanager
def answers_to(out: Path | None, columns: Sequence[str], *, as_json: bool) -> Iterator[Answers]:
    """Answers on stdout, or in a file that appears when all are written."""
    if out is None:
        yield Answers(sys.stdout, columns, as_json=as_json)
        return
    with atomic_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield Answers(file, columns, as_json=as_json)


def check_writable(out: Path | None, pictures: Path | None = None) -> None:
    """Create the folder of the answers and that of the pictures, before anything is computed.

    Raises:
        UserError: a folder cannot be created or written to.
    """
    for folder in ([out.parent] if out else []) + ([pictures] if pictures else []):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UserError(str(folder), f"cannot be written ({error.strerror})", "Use another folder") from None


def picture_name(number: int, file: str, piece: int | None, what: str) -> str:
    """The name of a picture: number of the row, name of the file, number of the slice."""
    stem = Path(file.replace("#", "-")).stem[:80]
    return f"{number:05d}-{stem}{'' if piece is None else f'-{piece:04d}'}-{what}.png"


def counted(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def finish(answered: str, faults: int) -> None:
    """Print a summary, and end with exit code 1 if files have no answer."""
    say(f"{answered}; {faults} without an answer" if faults else answered)
    if faults:
        raise SystemExit(1)
