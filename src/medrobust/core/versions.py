"""Versions of the packages that decide results. Each metrics file names them, and so does `data/code`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

#: Packages that compute numbers or pixels. The version of Python is left out, because results do not depend on it.
PACKAGES = (
    "grad-cam", "kornia", "numpy", "optuna", "pandas", "pillow", "scikit-learn", "scipy", "timm", "torch",
    "torchattacks", "torchvision",
)  # fmt: skip


@cache
def installed() -> str:
    """The installed versions in one line: `grad-cam 1.5.7, kornia 0.9.0, ...`."""
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def of_metrics(content: Any) -> str:
    """The line of versions in the content of a metrics file; "" if it names none."""
    match content:
        case {"versions": [str(line)]}:
            return line
    return ""


def differences(before: str, after: str) -> list[str]:
    """One text per package that two lines name with different versions: `torch 2.14.0 -> 2.15.0`."""
    old, new = _parsed(before), _parsed(after)
    return [f"{name} {old[name]} -> {new[name]}" for name in old if new.get(name, old[name]) != old[name]]


def changed_results(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[str]]:
    """Difference -> names of the results that have it.

    `before` and `after` are two runs: name of a result (the path of its metrics file) -> its line of versions.
    Results that only one of both has are left out.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(before.keys() & after.keys()):
        for difference in differences(before[name], after[name]):
            found.setdefault(difference, []).append(name)
    return found


def by_package(lines: Iterable[str]) -> dict[str, Counter[str]]:
    """Package -> version -> number of lines that name it."""
    found: dict[str, Counter[str]] = {}
    for line in lines:
        for name, number in _parsed(line).items():
            found.setdefault(name, Counter())[number] += 1
    return found


def _parsed(line: str) -> dict[str, str]:
    """Package -> version."""
    return {name: number for name, _, number in (part.partition(" ") for part in line.split(", ") if part)}
