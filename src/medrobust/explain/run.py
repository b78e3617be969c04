"""An explanation cell: maps, what an attack does to them, and their pictures."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.intervals import round_to_interval
from medrobust.core.params.explain import ExplainParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import atomic_dir, write_metrics, write_table
from medrobust.explain.compare import Comparison, compare
from medrobust.explain.drift import summarise, unrelated_overlap
from medrobust.explain.pictures import draw_all
from medrobust.explain.subject import Subject


@dataclass(frozen=True)
class Outputs:
    """Where a cell writes: metrics, one row an image and kind of map, and a folder of pictures."""

    metrics: Path
    table: Path
    plots: Path


def explain_model(subject: Subject, out: Outputs, *, params: ExplainParams, report: ReportParams) -> None:
    """Compare maps, draw pictures, and write both."""
    begin = time.monotonic()
    found = compare(subject, params.drift_images, params.eps, params.top)
    record = _record(subject, found, params, report)
    with atomic_dir(out.plots) as folder:
        record["captions"], record["missing"] = draw_all(subject, found, folder, params)
        record["pictures"] = _digest(folder)
    record["seconds"] = round(time.monotonic() - begin, 1)
    write_table(out.table, pd.concat([t.assign(map=kind) for kind, t in found.tables.items()], ignore_index=True))
    write_metrics(out.metrics, record, dvc_metrics(record))


def _record(subject: Subject, found: Comparison, params: ExplainParams, report: ReportParams) -> dict[str, Any]:
    """What `metrics/explain/*.json` holds, less the pictures."""
    first = next(iter(found.tables.values()))
    layer = {"layer": subject.layer[0].name, "grid": list(subject.layer[1])} if subject.layer else {}
    return {
        "suite": subject.suite["name"],
        "eps": params.eps,
        "n": len(first),
        "patients": int(first["patient"].nunique()),
        "changed": int(first["changed"].sum()),
        "region": found.region,
        "region_share": None if np.isnan(found.share) else found.share,
        "unrelated_iou": unrelated_overlap(params.top),
        **layer,
        **{
            kind: summarise(table, resamples=report.bootstrap, confidence=report.confidence)
            for kind, table in found.tables.items()
        },
    }


def dvc_metrics(record: dict[str, Any]) -> dict[str, float]:
    """What DVC shows: how far the maps overlap after the attack; Grad-CAM's, saliency's where a model has none."""
    drift = record.get("gradcam") or record["saliency"]
    return {} if drift["iou"] is None else {"map_iou": round_to_interval(drift["iou"], drift["iou_ci"])}


def _digest(folder: Path) -> str:
    """A hash of the pictures: the report depends on the metrics, and so is made anew when a picture changes."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.png")):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()[:16]
