"""An explanation cell: the maps of one model, how far an attack moves them, and their pictures."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.intervals import round_to_interval
from medrobust.core.lineage import MADE_ON
from medrobust.core.params.explain import ExplainParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import atomic_dir, write_metrics, write_table
from medrobust.explain.compare_maps import MapComparison, compare_maps
from medrobust.explain.drift import summarise_drift, unrelated_overlap
from medrobust.explain.explained_model import ExplainedModel
from medrobust.explain.pictures import draw_pictures


@dataclass(frozen=True)
class ExplanationOutputs:
    """Paths that a cell writes: metrics, a table with one row per image and kind of map, a folder of pictures."""

    metrics: Path
    table: Path
    plots: Path


def explain_model(
    explained: ExplainedModel, out: ExplanationOutputs, *, params: ExplainParams, report: ReportParams,
    made_on: dict[str, Any],
) -> None:  # fmt: skip
    """Compare the maps, draw the pictures, and write both; the metrics carry `made_on` (core/lineage.py)."""
    compared = compare_maps(explained, params.drift_images, params.eps, params.top)
    record = _record(explained, compared, params, report)
    with atomic_dir(out.plots) as folder:
        record["captions"], record["missing"] = draw_pictures(
            explained, compared, folder, params, images=params.images if report.pictures else 0
        )
        record["pictures"] = _digest(folder)
    tables = [table.assign(map=kind) for kind, table in compared.tables.items()]
    write_table(out.table, pd.concat(tables, ignore_index=True))
    write_metrics(out.metrics, {**record, MADE_ON: made_on}, dvc_metrics(record))


def _record(
    explained: ExplainedModel, compared: MapComparison, params: ExplainParams, report: ReportParams
) -> dict[str, Any]:
    """The content of `metrics/explain/*.json` without the pictures."""
    first = next(iter(compared.tables.values()))
    layer = {"layer": explained.layer[0].name, "grid": list(explained.layer[1])} if explained.layer else {}
    return {
        "suite": explained.suite["name"],
        "eps": params.eps,
        "n": len(first),
        "patients": int(first["patient"].nunique()),
        "changed": int(first["changed"].sum()),
        "region": compared.region,
        "region_share": None if np.isnan(compared.share) else compared.share,
        "unrelated_iou": unrelated_overlap(params.top),
        **layer,
        **{
            kind: summarise_drift(table, resamples=report.bootstrap, confidence=report.confidence)
            for kind, table in compared.tables.items()
        },
    }


def dvc_metrics(record: dict[str, Any]) -> dict[str, float]:
    """The metric that DVC shows: overlap of the maps after the attack, of Grad-CAM or, without it, of saliency."""
    drift = record.get("gradcam") or record["saliency"]
    return {} if drift["iou"] is None else {"map_iou": round_to_interval(drift["iou"], drift["iou_ci"])}


def _digest(folder: Path) -> str:
    """A hash of the pictures. The report depends on the metrics, so a changed picture makes it run again."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.png")):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()[:16]
