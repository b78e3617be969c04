"""What attacks do beside taking accuracy: to the trust in probabilities, and to single classes."""

from medrobust.report.collect import CLEAN, Run, name_of
from medrobust.report.tables.cells import Table, no_width, number, ranged, with_interval
from medrobust.report.tables.models import TRAINING, robust


def calibration_table(run: Run, confidence: float) -> Table:
    """How far probabilities can be trusted before and after an attack, of every model."""
    rows = []
    for model, regime in run.models():
        before, after = (run.judged(source, model, regime) for source in (CLEAN, name_of(model, regime)))
        for (suite, eps), row in after.items():
            for images, part in (("clean", before[suite, eps]), (f"{suite} ε {eps:g}", row)):
                loss = ranged(part["log_loss"], part["log_loss_low"], part["log_loss_high"])
                accuracy = ranged(part["accuracy"], part["low"], part["high"])
                scores = [number(part["brier"]), number(part["ece"])]
                rows.append([model, TRAINING[regime], images, accuracy, loss, *scores])
    count = f"{run.transfer.get('n')} test images of {run.transfer.get('patients')} patients"
    note = (
        f"On {count}, the same before and after; attacks run to their last step, so that the scores are those "
        f"of a finished attack and not of the boundary. Brackets are {confidence:.0%} intervals over whole "
        "patients. Brier score from 0 to 2. ECE is biased upwards in small samples: compare it between rows "
        "only."
    )
    columns = ["model", "training", "images", "accuracy", "log-loss", "Brier", "ECE"]
    return Table("Calibration before and after attack", columns, rows, note).warned(
        confidence, run.transfer.get("patients")
    )


def recall_table(run: Run, confidence: float) -> Table:
    """Recall of each class, clean and under every suite at the radius nearest to that of training."""
    classes = run.classes()
    rows = []
    for model, regime in run.models():
        clean = run.clean(model, regime)
        cells = [with_interval(clean, f"recall_{name}") for name in classes]
        rows.append([model, TRAINING[regime], "clean", *cells])
        for suite in run.suites:
            near, curve = run.at(model, regime, suite), run.curves.get((model, regime, suite))
            if near is None or curve is None:
                continue
            point = min(curve.to_dict("records"), key=lambda row: abs(row["eps"] - float(near)))
            recalls = (robust(point, f"recall_{name}") for name in classes)
            rows.append([model, TRAINING[regime], f"{suite} ε {near}", *recalls])
    note = (
        "A class that falls while the mean holds is where an attack hurts. Attacked: worst case of the suite. "
        f"Brackets are {confidence:.0%} intervals over the class's patients."
    )
    counts = [run.fewest(name) for name in classes]
    heads = [f"{name} ({count} patients)" if count else name for name, count in zip(classes, counts, strict=True)]
    # What an interval without width hides is told of the smallest class that has one.
    flat = [n for k, n in enumerate(counts, 3) if n and no_width([[row[k]] for row in rows], confidence)]
    table = Table("Recall by class, clean and attacked", ["model", "training", "images", *heads], rows, note)
    return table.warned(confidence, min(flat, default=None))
