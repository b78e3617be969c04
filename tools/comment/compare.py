"""Compare the results that two commits hold: params, headline measures at fixed radii, verdicts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from medrobust.core.versions import changed_results
from medrobust.report.tables.table import number
from tools.comment.results import DATA, Results, Value
from tools.preset import differences

#: A p-value below this is called clear.
LEVEL = 0.05


class Measure(NamedTuple):
    """What a row shows: clean balanced accuracy, or robust accuracy under a suite at one radius."""

    model: str
    suite: str | None = None
    eps: str | None = None

    @property
    def label(self) -> str:
        if self.suite is None:
            return f"{self.model}: balanced accuracy"
        return f"{self.model}: robust accuracy, {self.suite}, ε {self.eps}"

    def of(self, results: Results) -> Value | None:
        """The committed value."""
        if self.suite is None or self.eps is None:
            return results.clean(self.model)
        return results.robust(self.model, self.suite, self.eps)


#: The p-value of the paired test between both commits; None where the records of one are not at hand.
PairedTest = Callable[[Measure], float | None]


@dataclass(frozen=True)
class Row:
    """One measure on both sides."""

    measure: Measure
    base: Value
    this: Value
    p: float | None = None

    @property
    def changed(self) -> bool:
        """Whether the values differ by the digits that are shown."""
        return number(self.base.value) != number(self.this.value)

    @property
    def overlap(self) -> bool | None:
        """Whether the intervals overlap; None if one side has none."""
        if not self.base.interval or not self.this.interval:
            return None
        return self.base.interval[0] <= self.this.interval[1] and self.this.interval[0] <= self.base.interval[1]

    @property
    def clear(self) -> bool:
        """Whether the change is more than chance explains: by the paired test, else by the intervals."""
        return self.changed and (self.overlap is False if self.p is None else self.p < LEVEL)


@dataclass(frozen=True)
class Comparison:
    """What differs between the results of two commits."""

    params: list[str]  # `key: old -> new`
    packages: list[str]  # `name old -> new` of those that computed both sides' results
    rows: list[Row]  # every headline measure that both have, in a fixed order
    only_base: list[str]  # models and suites that this side does not have
    only_this: list[str]
    other_data: list[str]  # which of data and split differ; then no row
    new: list[tuple[Measure, Value]]  # of this side, where nothing is compared
    audit: tuple[str, str]
    checklist: tuple[str, str]
    checks: list[tuple[str, str, str]]  # model, verdicts that differ

    @property
    def changed(self) -> list[Row]:
        """Rows that changed, clear changes first."""
        return sorted((row for row in self.rows if row.changed), key=lambda row: not row.clear)

    @property
    def tested(self) -> bool:
        """Whether a row has a paired test."""
        return any(row.p is not None for row in self.rows)


def compare(base: Results, this: Results, paired: PairedTest | None = None) -> Comparison:
    """Compare two commits; numbers only where both were measured on the same test images."""
    other = [name for name, out in DATA.items() if _both_differ(base.outs.get(out), this.outs.get(out))]
    rows = [] if other else [*_rows(base, this, paired)]
    models = [model for model in this.models() if model in base.models()]
    checks = [(model, base.checklist(model), this.checklist(model)) for model in models]
    return Comparison(
        params=[*differences(base.params, this.params)],
        packages=[*changed_results(base.versions, this.versions)],
        rows=rows,
        only_base=_names(base, this),
        only_this=_names(this, base),
        other_data=other,
        new=[] if rows else [*_measured(this)],
        audit=(base.audit(), this.audit()),
        checklist=(base.worst_checklist(), this.worst_checklist()),
        checks=[check for check in checks if check[1] != check[2]],
    )


def _rows(base: Results, this: Results, paired: PairedTest | None) -> Iterator[Row]:
    suites = [suite for suite, norm in this.suites().items() if base.suites().get(suite) == norm]
    radii = {suite: _radius(base, suite, base.radii(suite) & this.radii(suite)) for suite in suites}
    for measure in _measures([model for model in this.models() if model in base.models()], radii):
        before, after = measure.of(base), measure.of(this)
        if before and after:
            row = Row(measure, before, after)
            yield replace(row, p=paired(measure)) if paired and row.changed else row


def _measured(this: Results) -> Iterator[tuple[Measure, Value]]:
    radii = {suite: _radius(this, suite, this.radii(suite)) for suite in this.suites()}
    for measure in _measures(this.models(), radii):
        if value := measure.of(this):
            yield measure, value


def _measures(models: list[str], radii: dict[str, str | None]) -> Iterator[Measure]:
    for model in models:
        yield Measure(model)
        yield from (Measure(model, suite, eps) for suite, eps in radii.items() if eps)


def _radius(base: Results, suite: str, radii: set[str]) -> str | None:
    """The radius of a row, fixed by the base: the nearest to its `adv.eps`; in another norm the middle one."""
    if base.suites()[suite] == "Linf":
        return min(sorted(radii), key=lambda eps: abs(float(eps) - base.training_eps()), default=None)
    return sorted(radii, key=float)[len(radii) // 2] if radii else None


def _names(one: Results, other: Results) -> list[str]:
    """Models and suites that only one side has; a suite of another norm is another suite."""
    models = [model for model in one.models() if model not in other.models()]
    return models + [f"suite {name}" for name, norm in one.suites().items() if other.suites().get(name) != norm]


def _both_differ(old: str | None, new: str | None) -> bool:
    return old is not None and new is not None and old != new
