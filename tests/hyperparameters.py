"""For the contracts of attacks and detectors: values that the annotations of a class do not allow."""

from dataclasses import fields
from typing import Any, Literal, get_args, get_origin


def refusable(kind: type[Any]) -> list[tuple[str, Any]]:
    """Pairs of a field and a value to refuse: a set, which none takes, and numbers and words that mean nothing."""
    found: list[tuple[str, Any]] = []
    for each in fields(kind):
        if not each.init or not each.repr:
            continue
        found.append((each.name, {1}))
        options: list[Any] = [each.type, *get_args(each.type)]
        if int in options and str not in options:
            found += [(each.name, -1), (each.name, 2.5)]
        if float in options:
            found += [(each.name, -1.0), (each.name, "much")]
        if any(get_origin(option) is Literal for option in options):
            found.append((each.name, "nonsense"))
    return found
