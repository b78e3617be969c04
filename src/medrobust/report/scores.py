"""The probabilities of every model on clean test images, and on images attacked with all steps."""

import numpy as np
import pandas as pd

from medrobust.core.metrics import auroc
from medrobust.core.ranking import auroc_ci
from medrobust.report.run import Run, Scored, name_of


def score_models(run: Run, *, resamples: int, confidence: float) -> None:
    """Fill `run.scored` from `run.answers`.

    A worst case over several attacks has no probabilities, so that attacked images are those of the transfer
    matrix that were made on the model itself.
    """
    crossed, transfer = run.answers.scores, run.ensemble.transfer
    for model, predictions in run.answers.predictions.items():
        sets = {"clean": predictions[predictions["split"] == "test"]}
        if crossed is not None:
            own = name_of(*model)
            sets[f"{transfer['suite']} ε {transfer['eps']:g}"] = crossed[
                (crossed["source"] == own) & (crossed["judge"] == own)
            ]
        run.scored[model] = [
            _scored(images, table, resamples, confidence) for images, table in sets.items() if len(table)
        ]


def _scored(images: str, table: pd.DataFrame, resamples: int, confidence: float) -> Scored:
    labels, patients = table["label"].to_numpy(), table["patient"].to_numpy().astype(str)
    logprobs = log_probabilities(table)
    interval = auroc_ci(labels, logprobs, patients, resamples=resamples, confidence=confidence)
    return Scored(images, labels, patients, logprobs, auroc(labels, logprobs), interval)


def log_probabilities(table: pd.DataFrame) -> np.ndarray:
    """The columns `logprob_<k>` of a table of predictions, n×K."""
    return table[[name for name in table if str(name).startswith("logprob_")]].to_numpy(float)
