"""Columns and cells of the measures of calibration (core/reliability.py), the same in every table."""

from collections.abc import Mapping
from typing import Any

from medrobust.report.tables.table import number, ranged, with_interval

#: Signed measures and their columns.
LINE = {
    "confidence_gap": "confidence − accuracy",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
}
#: Column of `calibration_error`.
CALIBRATION_ERROR = "ECE (calibrated: mean, upper)"


def line_cells(row: Mapping[Any, Any], line: dict[str, Any] | None = None) -> list[str]:
    """The cells of `LINE` from a row of the transfer matrix, which has an interval of the gap alone.

    `line` is the result of `calibration_line` on the images of the row, which has those of slope and intercept.
    """
    gap = ranged(*(row[f"confidence_gap{end}"] for end in ("", "_low", "_high")))
    return [gap, *(with_interval(line, name) if line else number(row[name]) for name in list(LINE)[1:])]


def calibration_error(record: Mapping[Any, Any], prefix: str = "") -> str:
    """An expected calibration error, and in brackets its mean and upper quantile for a calibrated model."""
    error, null, high = (record.get(f"{prefix}{name}") for name in ("ece", "ece_null", "ece_null_high"))
    return number(error) if error is None or null is None else f"{number(error)} ({number(null)}, {number(high)})"
