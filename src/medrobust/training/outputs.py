"""The files that a training stage writes: checkpoint, predictions, metrics, training curves, confusion matrix."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.metrics import classification_summary, dvc_metrics, round_best
from medrobust.core.params.report import ReportParams
from medrobust.core.params.training import ModelParams
from medrobust.core.records import atomic_dir, write_metrics, write_table
from medrobust.data.store import Subset
from medrobust.models import checkpoint
from medrobust.models.classifier import Classifier
from medrobust.models.predict import log_probabilities, predictions_table
from medrobust.training.state import FitResult


@dataclass(frozen=True)
class TrainOutputs:
    """Paths that a training stage writes."""

    model: Path
    predictions: Path
    metrics: Path
    plots: Path


def write_outputs(
    outputs: TrainOutputs, classifier: Classifier, result: FitResult, subsets: dict[str, Subset], *,
    model: ModelParams, ordered: bool, report: ReportParams, card: dict[str, Any], robust: bool,
) -> None:  # fmt: skip
    """Evaluate the trained classifier on validation and test images and write all outputs.

    Args:
        outputs: where to write.
        classifier: the trained classifier, with the weights of the best epoch.
        result: the result of the training.
        subsets: the images by split; `val` and `test` are evaluated.
        model: the backbone's block of params.yaml.
        ordered: whether the classes are ordered.
        report: number of bootstrap resamples and confidence level.
        card: facts for the checkpoint's card.
        robust: whether the best epoch has the best balanced accuracy on attacked validation images, not on clean
            ones.
    """
    logprobs = {name: log_probabilities(classifier, subsets[name]) for name in ("val", "test")}
    tables = [predictions_table(subsets[name], name, values) for name, values in logprobs.items()]
    write_table(outputs.predictions, pd.concat(tables, ignore_index=True))
    test = subsets["test"]
    summary = classification_summary(
        test.labels, logprobs["test"], test.patients, test.classes,
        ordered=ordered, resamples=report.bootstrap, confidence=report.confidence,
    )  # fmt: skip
    best = {"best_epoch": result.best_epoch + 1, "best_val_balanced_accuracy": result.best_value}
    stopped = {"stopped": result.stopped} if result.stopped else {}
    metrics = {**summary, **best, **stopped}
    val = {"val_robust" if robust else "val_clean": round_best(result.best_value)}
    write_metrics(outputs.metrics, metrics, {**dvc_metrics(summary), **val})
    _write_plots(outputs.plots, result, test, logprobs["test"].argmax(1))
    checkpoint.save(
        outputs.model, classifier, model, {**card, "metrics": {k: summary[k] for k in ("n", "accuracy")}}
    )


def table_hash(table: pd.DataFrame) -> str:
    """A short hash of a table's content, for cards and resume keys."""
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()[:16]


def array_hash(array: np.ndarray) -> str:
    """A short hash of an array's content."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:16]


def _write_plots(folder: Path, result: FitResult, test: Subset, preds: np.ndarray) -> None:
    from dvclive import Live

    with atomic_dir(folder) as temporary:
        with Live(dir=str(temporary / "live"), dvcyaml=None, save_dvc_exp=False, report=None) as live:
            for row in result.history:
                for name, value in row.items():
                    live.log_metric(name, value)
                live.next_step()
        names = np.array(test.classes)
        table = pd.DataFrame({"actual": names[test.labels], "predicted": names[preds]})
        table.to_csv(temporary / "confusion.csv", index=False)
        pd.DataFrame(result.history).assign(epoch=range(1, len(result.history) + 1)).to_csv(
            temporary / "history.csv", index=False
        )
