"""Hyper-parameters of what a registry names (attacks, detectors): their annotations say what they may be."""

from collections.abc import Mapping
from dataclasses import Field, fields
from functools import cache
from inspect import Parameter, signature
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import ConfigDict, TypeAdapter, ValidationError

from medrobust.core.errors import UserError

T = TypeVar("T")

#: By how much a product of step size and number may miss a radius, as a share of it.
ROUNDING = 1e-5

#: From zero.
Natural = Annotated[int, pydantic.Field(ge=0)]
#: How many of something: at least one.
Count = Annotated[int, pydantic.Field(ge=1)]
#: From zero.
NotNegative = Annotated[float, pydantic.Field(ge=0)]
#: A share of something, above 0 and at most 1.
Part = Annotated[float, pydantic.Field(gt=0, le=1)]


def build(kind: type[T], settings: Mapping[str, Any], where: str, **fixed: Any) -> T:
    """An object of a dataclass from a user's settings.

    Args:
        kind: the dataclass; its `__post_init__` begins with `check_values`. One that takes any keyword (`**more`)
            refuses unknown ones itself.
        settings: hyper-parameters by name; those left out have the class's defaults.
        where: whose settings they are, for messages.
        fixed: what is no user's to say here.

    Raises:
        UserError: an unknown hyper-parameter, or whatever the class refuses.
    """
    known = [each.name for each in _said(kind) if each.name not in fixed]
    takes_any = any(each.kind is Parameter.VAR_KEYWORD for each in signature(kind).parameters.values())
    for key in settings:
        if key not in known and not takes_any:
            raise UserError(f"{where}.{key}", "unknown hyper-parameter", f"Known: {', '.join(known) or 'none'}")
    try:
        return kind(**fixed, **settings)
    except UserError as error:
        key = error.where.partition(".")[2]
        raise UserError(f"{where}.{key}" if key else where, error.found, error.remedy) from None


def check_values(made: Any, name: str) -> None:
    """Refuse a value that its field's annotation does not allow: another type, word or range.

    Args:
        made: an object of a dataclass.
        name: what it is, for the message.

    Raises:
        UserError: names the first such field.
    """
    kind: Any = type(made)
    for key, adapter in _adapters(kind).items():
        value = getattr(made, key)
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise UserError(f"{name}.{key}", f"got {value!r}", error.errors()[0]["msg"]) from None


def reaches(alpha: float, steps: int, eps: float) -> bool:
    """Whether steps of size alpha can lead from the middle of a ball to its border, rounding allowed for."""
    return alpha * steps >= eps * (1 - ROUNDING)


def _said(kind: type[Any]) -> list[Field[Any]]:
    """The fields that are hyper-parameters; the others hold what code hands over or finds."""
    return [each for each in fields(kind) if each.init and each.repr]


@cache
def _adapters(kind: type[Any]) -> dict[str, TypeAdapter[Any]]:
    """What judges the value of each hyper-parameter."""
    types: dict[str, Any] = {each.name: each.type for each in _said(kind)}
    options = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    return {name: TypeAdapter(annotation, config=options) for name, annotation in types.items()}
