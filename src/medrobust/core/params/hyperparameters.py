"""Hyper-parameters of the classes in a registry (attacks, detectors): annotations define the allowed values."""

from collections.abc import Mapping
from dataclasses import Field, fields
from functools import cache
from inspect import Parameter, signature
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import ConfigDict, TypeAdapter, ValidationError

from medrobust.core.errors import UserError

T = TypeVar("T")

#: Allowed gap between step size times steps and a radius, as a share of the radius.
ROUNDING = 1e-5

#: A share, above 0 and at most 1.
Part = Annotated[float, pydantic.Field(gt=0, le=1)]


def build(kind: type[T], settings: Mapping[str, Any], where: str, **fixed: Any) -> T:
    """Build an object of a dataclass from a user's settings.

    Args:
        kind: the dataclass; its `__post_init__` starts with `check_values`. One that takes any keyword (`**more`)
            refuses unknown ones itself.
        settings: hyper-parameters by name; those left out have the defaults of the class.
        where: the key of the settings, for messages.
        fixed: fields that the user cannot set here.

    Raises:
        UserError: an unknown hyper-parameter, or a value that the class refuses.
    """
    known = [each.name for each in _settable(kind) if each.name not in fixed]
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
    """Refuse a dataclass object with a value whose type, word or range its annotation does not allow.

    Raises:
        UserError: names the first such value, as a field of `name`.
    """
    kind: Any = type(made)
    for key, adapter in _adapters(kind).items():
        value = getattr(made, key)
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise UserError(f"{name}.{key}", f"got {value!r}", error.errors()[0]["msg"]) from None


def reaches(alpha: float, steps: int, eps: float) -> bool:
    """Whether steps of size alpha can lead from the centre of a ball to its border, up to rounding."""
    return alpha * steps >= eps * (1 - ROUNDING)


def _settable(kind: type[Any]) -> list[Field[Any]]:
    """The fields that are hyper-parameters; the others are set by code."""
    return [each for each in fields(kind) if each.init and each.repr]


@cache
def _adapters(kind: type[Any]) -> dict[str, TypeAdapter[Any]]:
    types: dict[str, Any] = {each.name: each.type for each in _settable(kind)}
    options = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    return {name: TypeAdapter(annotation, config=options) for name, annotation in types.items()}
