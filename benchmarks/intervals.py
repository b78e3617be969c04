"""Coverage of the pipeline's confidence intervals on simulated test sets whose true accuracy is known.

    python benchmarks/intervals.py                                  # three compositions, minutes on one core
    python benchmarks/intervals.py --patients 10 7 5 3 --images 4   # patients of each class, images per patient

Each patient has a rate of correct predictions, drawn from a beta distribution around the recall of the class. Its
variance follows from the given correlation between two images of a patient. Each image is correct with that rate.
An interval is good if the share of simulated test sets in which it contains the true accuracy equals its
confidence.
"""

import argparse

import numpy as np

from medrobust.core import intervals, metrics

#: Patients of each class and images per patient: the default phantom's, the Alzheimer release's, 500 patients.
COMPOSITIONS = [((10, 7, 5, 3), 4), ((25, 18, 8), 32), ((250, 150, 100), 4)]
#: Recalls of up to four classes.
RECALLS = {
    "fair": (0.6, 0.4, 0.5, 0.45), "good": (0.95, 0.75, 0.85, 0.83), "attacked": (0.1, 0.05, 0.02, 0.02),
    "two classes right, two wrong": (0.97, 0.03, 0.03, 0.9),
}  # fmt: skip
STATISTICS: dict[str, intervals.Statistic] = {
    "accuracy": metrics.accuracy, "balanced accuracy": metrics.balanced_accuracy,
}  # fmt: skip


def test_set(
    rng: np.random.Generator,
    patients: tuple[int, ...],
    recalls: tuple[float, ...],
    images: int,
    correlation: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and patients, n each, of one simulated test set."""
    stratum = np.repeat(np.arange(len(patients)), patients)
    spread = (1 - correlation) / correlation
    mean = np.asarray(recalls)[stratum]
    rates = rng.beta(spread * mean, spread * (1 - mean))
    right = rng.random((len(stratum), images)) < rates[:, None]
    labels = np.repeat(stratum, images)
    preds = np.where(right.ravel(), labels, (labels + 1) % len(patients))
    return labels, preds, np.repeat(np.arange(len(stratum)), images)


def coverage(
    patients: tuple[int, ...], recalls: tuple[float, ...], images: int, correlation: float, *,
    sets: int, confidence: float,
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Statistic -> share of the intervals that contain the true value, and their mean width."""
    rng = np.random.default_rng(0)
    recalls = recalls[: len(patients)]
    truth = {
        "accuracy": float(np.average(recalls, weights=patients)), "balanced accuracy": float(np.mean(recalls)),
    }  # fmt: skip
    covered: dict[str, list[bool]] = {name: [] for name in STATISTICS}
    width: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for _ in range(sets):
        sample = test_set(rng, patients, recalls, images, correlation)
        for name, statistic in STATISTICS.items():
            low, high = intervals.bootstrap_ci(
                *sample, len(patients), statistic, resamples=500, confidence=confidence
            )
            covered[name].append(low <= truth[name] <= high)
            width[name].append(high - low)
    return {name: (float(np.mean(covered[name])), float(np.mean(width[name]))) for name in STATISTICS}


def main() -> None:
    """Run the simulations of the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", help="of each class, at most four classes")
    parser.add_argument("--images", type=int, default=4, help="per patient")
    parser.add_argument("--correlation", type=float, nargs="+", default=[0.2, 0.5], help="within a patient")
    parser.add_argument("--sets", type=int, default=400, help="simulated test sets of each row")
    parser.add_argument("--confidence", type=float, default=0.95)
    args = parser.parse_args()
    compositions = [(tuple(args.patients), args.images)] if args.patients else COMPOSITIONS
    print("| patients of each class | images per patient | model | correlation | accuracy | balanced accuracy |")
    print("|---|---|---|---|---|---|")
    for patients, images in compositions:
        for model, recalls in RECALLS.items():
            for correlation in args.correlation:
                found = coverage(
                    patients, recalls, images, correlation, sets=args.sets, confidence=args.confidence
                )
                cells = [f"{share:.2f} (width {width:.2f})" for share, width in found.values()]
                named = ", ".join(map(str, patients))
                print(f"| {named} | {images} | {model} | {correlation:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
