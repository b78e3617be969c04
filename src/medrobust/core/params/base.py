"""Common parts of all blocks of params.yaml: strict frozen models, names, and numbers in pixel units."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from medrobust.core.text import is_printable

T = TypeVar("T")

#: Names that no file on Windows can have, with any suffix.
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
#: Maximum length of a name. A file name contains up to three names, and most systems allow 255 characters.
LONGEST = 64


class Block(BaseModel):
    """A block of params.yaml: immutable; an unknown key, infinity and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def parse_fraction(value: Any) -> Any:
    """Turn `8/255` (text in YAML) into a float, or raise ValueError; pydantic checks anything else."""
    if not isinstance(value, str):
        return value
    numerator, _, denominator = value.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{value!r} is neither a number nor a fraction such as 8/255") from None


def rising(pair: list[float]) -> list[float]:
    """Raise ValueError if the larger of two values comes first; they may be equal."""
    if pair[0] > pair[1]:
        raise ValueError("Put the smaller value first")
    return pair


def _in_pixel_units(value: float) -> float:
    if value > 1:
        raise ValueError("Pixels are in [0, 1]; use 8/255 for 8 grey levels")
    return value


def _usable_name(name: Any) -> Any:
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)):
        raise ValueError("Use letters, digits and _, starting with a letter: names of stages and files contain it")
    if name.lower() in RESERVED:
        raise ValueError("Use another name: Windows has no file of this one")
    if len(name) > LONGEST:
        raise ValueError(f"Use at most {LONGEST} characters: names of stages and files contain it")
    return name


def _distinct(block: dict[str, T]) -> dict[str, T]:
    """Raise ValueError for names that differ in capitals only: on some systems their files are the same."""
    seen: dict[str, str] = {}
    for name in block:
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ValueError(f"{other} and {name} differ in capitals only, and so do their files: rename one")
    return block


def _number_as_text(name: Any) -> Any:
    """The text of a whole number; YAML reads `classes: [0, 1]` as numbers, labels are compared as text."""
    if type(name) is int:
        return str(name)
    if not isinstance(name, str):
        raise ValueError("The name of a class is text or a whole number; put quotes around it")
    return name


def printable(text: str) -> str:
    """Return text that can be shown; raise ValueError if it is blank, not one line, or not all visible."""
    if not is_printable(text):
        raise ValueError("Use one line of visible text")
    return text


#: A name that the user gives to a model, an attack suite or a detector. It is part of files, of names of DVC's
#: stages and of their shell commands, unquoted. DVC splits keys at `.`, files use `-`.
Name = Annotated[str, BeforeValidator(_usable_name)]
#: Blocks by such a name.
Named = Annotated[dict[Name, T], AfterValidator(_distinct)]
#: A label of the data: text, or a whole number that becomes text.
Label = Annotated[str, BeforeValidator(_number_as_text)]
#: The name of a class, which figures and tables show.
ClassName = Annotated[Label, AfterValidator(printable)]
#: A distance in [0, 1] pixel units; YAML may have 0.03 or 8/255.
Eps = Annotated[float, BeforeValidator(parse_fraction), AfterValidator(_in_pixel_units), Field(ge=0)]
#: The radius of a ball of either norm; an L2 radius grows with the number of pixels.
Radius = Annotated[float, BeforeValidator(parse_fraction), Field(ge=0)]
#: A whole number, at least 0.
Natural = Annotated[int, Field(ge=0)]
#: A whole number, at least 1.
Count = Annotated[int, Field(ge=1)]
#: A number, at least 0.
NotNegative = Annotated[float, Field(ge=0)]
#: Above zero.
Positive = Annotated[float, Field(gt=0)]
#: A share between 0 and 1, both included.
Share = Annotated[float, Field(ge=0, le=1)]
#: The ends of a range above 0: smallest, largest.
Range = Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(rising)]
