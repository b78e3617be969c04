"""Tables of discrimination and of operating points, on clean and on attacked images."""

import numpy as np
import pandas as pd

from medrobust.core.decisions import best_threshold, sensitivity_and_specificity
from medrobust.report.run import Model, Run, Scored
from medrobust.report.scores import log_probabilities
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table, number, ranged, with_interval
from medrobust.report.templates import table_note


def _scored(run: Run, unit: str) -> dict[Model, list[Scored]]:
    """What was scored of each model by image or by patient; models without any are left out."""
    found = {model: [each for each in sets if each.unit == unit] for model, sets in run.scored.items()}
    return {model: sets for model, sets in found.items() if sets}


def _title(name: str, unit: str) -> str:
    return name if unit == "image" else f"{name} by patient"


def discrimination_table(run: Run, confidence: float, unit: str = "image") -> Table:
    """AUROC of every model with its interval over patients, one column per set of images (or patients)."""
    by_model = _scored(run, unit)
    samples = {scored.images: scored for sets in by_model.values() for scored in sets}
    rows = []
    for (model, regime), sets in by_model.items():
        found = {scored.images: ranged(scored.auroc, *(scored.auroc_ci or (None, None))) for scored in sets}
        rows.append([model, TRAINING[regime], *(found.get(images, NONE) for images in samples)])
    columns = ["model", "training"]
    columns += [f"{images}: {len(scored.labels)} {unit}s" for images, scored in samples.items()]
    note = table_note("discrimination", confidence=confidence, classes=len(run.classes()), unit=unit)
    return Table(_title("AUROC", unit), columns, rows, note).with_warning()


def operating_table(run: Run, confidence: float, unit: str = "image") -> Table:
    """Sensitivity and specificity at the threshold that validation images (or patients) choose.

    One row per model and class: with two classes class 1, otherwise each class against the rest. A model without
    predictions on validation images has no row, and a class without validation images none.
    """
    rows, classes, by_model = [], run.classes(), _scored(run, unit)
    sets = list(dict.fromkeys(scored.images for found in by_model.values() for scored in found))
    for (model, regime), found in by_model.items():
        answers = run.answers.predictions if unit == "image" else run.answers.patients
        predictions = answers.get((model, regime), pd.DataFrame({"split": []}))
        val = predictions[predictions["split"] == "val"]
        scores, by_images = np.exp(log_probabilities(val)), {scored.images: scored for scored in found}
        for k in range(len(classes)) if len(classes) > 2 else [1]:
            threshold = best_threshold((val["label"] == k).to_numpy(bool), scores[:, k]) if len(val) else None
            if threshold is None:
                continue
            cells = []
            for images in sets:
                record = {}
                if scored := by_images.get(images):
                    called = np.exp(scored.logprobs[:, k]) >= threshold
                    record = sensitivity_and_specificity(scored.labels == k, called, scored.patients, confidence)
                cells += [with_interval(record, name) for name in ("sensitivity", "specificity")]
            rows.append([model, TRAINING[regime], classes[k], number(threshold), *cells])
    columns = ["model", "training", "positive class", "threshold"]
    columns += [f"{name}, {images}" for images in sets for name in ("sensitivity", "specificity")]
    note = table_note("operating", confidence=confidence, unit=unit)
    return Table(_title("Operating points", unit), columns, rows, note, folded=len(classes) > 2)
