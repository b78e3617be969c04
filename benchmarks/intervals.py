"""Coverage of the pipeline's intervals of rates on simulated test sets whose true rates are known.

    python benchmarks/intervals.py                                  # one class, then whole test sets; minutes
    python benchmarks/intervals.py --patients 10 7 5 3 --images 4   # patients of each class, images per patient

Each patient has a rate of correct predictions, drawn from a beta distribution around the recall of the class. Its
variance follows from the given correlation between two images of a patient. Each image is correct with that rate.
An interval is good if the share of simulated test sets in which it contains the true rate is at least its
confidence, and if it is not wider than this needs. Beside the pipeline's intervals (`core.rates`) stand the
percentiles of a bootstrap over patients.
"""

import argparse
from itertools import product

import numpy as np

from medrobust.core import intervals
from medrobust.core.rates import PatientCounts

#: Patients and recalls of one class.
PATIENTS, RATES = (8, 15, 40), (0.02, 0.1, 0.5, 0.98)
#: Patients of each class and images per patient: the default phantom's, the Alzheimer release's, 500 patients.
COMPOSITIONS = [((10, 7, 5, 3), 4), ((25, 18, 8), 32), ((250, 150, 100), 4)]
#: Recalls of up to four classes.
RECALLS = {
    "fair": (0.6, 0.4, 0.5, 0.45), "good": (0.95, 0.75, 0.85, 0.83), "attacked": (0.1, 0.05, 0.02, 0.02),
    "two classes right, two wrong": (0.97, 0.03, 0.03, 0.9),
}  # fmt: skip
RESAMPLES = 400
#: (statistic, method) -> share of the intervals that contain the true value, and their mean width.
Coverage = dict[tuple[str, str], tuple[float, float]]


def test_set(
    rng: np.random.Generator,
    patients: tuple[int, ...],
    recalls: tuple[float, ...],
    images: int,
    correlation: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each image is right, labels and patients, n each, of one simulated test set."""
    stratum = np.repeat(np.arange(len(patients)), patients)
    spread = (1 - correlation) / correlation
    mean = np.asarray(recalls)[stratum]
    rates = rng.beta(spread * mean, spread * (1 - mean))
    right = rng.random((len(stratum), images)) < rates[:, None]
    return right.ravel(), np.repeat(stratum, images), np.repeat(np.arange(len(stratum)), images)


def bootstrap(counts: PatientCounts, confidence: float) -> dict[str, list[float]]:
    """Percentile intervals over resamples of whole patients."""
    weights = intervals.patient_weights(counts.total.argmax(1), RESAMPLES)
    right, total = weights @ counts.right, weights @ counts.total
    drawn = {
        "recall": right[:, 0] / total[:, 0],
        "accuracy": right.sum(1) / total.sum(1),
        "balanced accuracy": (right / total).mean(1),
    }
    return {name: intervals.percentiles(values, confidence) for name, values in drawn.items()}


def coverage(
    patients: tuple[int, ...], recalls: tuple[float, ...], images: int, correlation: float, *,
    sets: int, confidence: float,
) -> Coverage:  # fmt: skip
    """Coverage of the intervals of the first class's recall, of accuracy and of balanced accuracy."""
    rng = np.random.default_rng(0)
    recalls = recalls[: len(patients)]
    truth = {
        "recall": recalls[0], "accuracy": float(np.average(recalls, weights=patients)),
        "balanced accuracy": float(np.mean(recalls)),
    }  # fmt: skip
    found: dict[tuple[str, str], list[tuple[bool, float]]] = {}
    for _ in range(sets):
        counts = PatientCounts.of(*test_set(rng, patients, recalls, images, correlation), len(patients))
        by_method = {
            "rates": {
                "recall": counts.recall_ci(0, confidence), "accuracy": counts.accuracy_ci(confidence),
                "balanced accuracy": counts.balanced_accuracy_ci(confidence),
            },
            "bootstrap": bootstrap(counts, confidence),
        }  # fmt: skip
        for method, named in by_method.items():
            for name, (low, high) in named.items():
                found.setdefault((name, method), []).append((low <= truth[name] <= high, high - low))
    means = {key: np.mean(values, axis=0).tolist() for key, values in found.items()}
    return {key: (share, width) for key, (share, width) in means.items()}


def cells(found: Coverage, names: tuple[str, ...]) -> str:
    """Cells of a table: for each statistic, coverage and mean width of both methods."""
    return " | ".join(
        f"{share:.3f} (width {width:.3f})"
        for name in names
        for share, width in (found[name, "rates"], found[name, "bootstrap"])
    )


def print_recalls(sets: int, confidence: float, correlations: list[float]) -> None:
    """Print the table of one class."""
    print(
        "| patients | images per patient | recall | correlation | rates | bootstrap |\n|---|---|---|---|---|---|"
    )
    for patients, images, rate, correlation in product(PATIENTS, (4, 32), RATES, correlations):
        found = coverage((patients,), (rate,), images, correlation, sets=sets, confidence=confidence)
        where = f"| {patients} | {images} | {rate:g} | {correlation:g} |"
        print(where, cells(found, ("recall",)), "|", flush=True)


def main() -> None:
    """Run the simulations of the command line and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", help="of each class, at most four classes")
    parser.add_argument("--images", type=int, default=4, help="per patient")
    parser.add_argument("--correlation", type=float, nargs="+", default=[0.2, 0.5, 0.9], help="within a patient")
    parser.add_argument("--sets", type=int, default=400, help="simulated test sets of each row")
    parser.add_argument("--confidence", type=float, default=0.95)
    args = parser.parse_args()
    compositions = [(tuple(args.patients), args.images)] if args.patients else COMPOSITIONS
    if not args.patients:
        print_recalls(args.sets, args.confidence, args.correlation)
    print("\n| patients of each class | images per patient | model | correlation | accuracy: rates | bootstrap |"
          " balanced accuracy: rates | bootstrap |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for patients, images in compositions:
        for model, recalls in RECALLS.items():
            for correlation in args.correlation:
                found = coverage(
                    patients, recalls, images, correlation, sets=args.sets, confidence=args.confidence
                )
                named = ", ".join(map(str, patients))
                row = cells(found, ("accuracy", "balanced accuracy"))
                print(f"| {named} | {images} | {model} | {correlation:g} | {row} |", flush=True)


if __name__ == "__main__":
    main()
