"""What the test set of a run can tell, from its patients and the answers of all models."""

import numpy as np

from medrobust.core.metrics import rate_estimates
from medrobust.core.rates import PatientCounts
from medrobust.core.sample_size import (
    balanced_half_width,
    clustering,
    detectable_difference,
    deviation_of,
)
from medrobust.report.answers import right_clean
from medrobust.report.run import Run, SampleSize


def plan_sample(run: Run, *, confidence: float) -> SampleSize | None:
    """Half-width and difference that clean test images can tell; None without predictions."""
    classes, counts, rates = run.classes(), [], []
    for test in map(right_clean, run.answers.predictions.values()):
        if test.empty:
            continue
        right, labels = test["right"].to_numpy(bool), test["label"].to_numpy()
        about = right, labels, test["patient"].to_numpy().astype(str)
        counts.append(PatientCounts.of(*about, len(classes)))
        rates.append(rate_estimates(*about, classes, confidence=confidence)["balanced_accuracy"].value)
    if not counts:
        return None
    patients = (counts[0].total > 0).sum(0)
    cluster, rate = clustering(counts), float(np.median(np.array(rates, dtype=float)))
    pairs = next((c.pairs.values() for c in run.comparisons if (c.unit, c.images) == ("image", "clean")), ())
    deviation = deviation_of([pair.interval for pair in pairs], confidence) if pairs else None
    return SampleSize(
        images=int(counts[0].total.sum()),
        patients=len(counts[0].total),
        by_class=dict(zip(classes, map(int, patients), strict=True)),
        cluster=cluster,
        rate=rate,
        half_width=balanced_half_width(rate, [int(n) for n in patients if n], cluster, confidence),
        difference=detectable_difference(deviation, len(counts[0].total), confidence) if deviation else None,
    )
