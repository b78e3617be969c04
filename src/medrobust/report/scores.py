"""The probabilities of every model on clean test images, and on images attacked with all steps."""

import numpy as np
import pandas as pd

from medrobust.core.metrics import auroc
from medrobust.core.ranking import auroc_ci
from medrobust.core.rates import share_ci
from medrobust.core.reliability import calibration
from medrobust.report.run import Run, Scored, name_of


def score_models(run: Run, *, resamples: int, confidence: float) -> None:
    """Fill `run.scored` from `run.answers`, and add the interval of AUROC to the records of clean test images.

    Attempts end at the decision boundary, so that attacked images are those of the transfer matrix that were made
    on the model itself, by attacks with all steps. Patients are attacked with the same suite and radius.
    """
    crossed, transfer, answers = run.answers.scores, run.ensemble.transfer, run.answers
    attacked = f"{transfer['suite']} ε {transfer['eps']:g}" if "suite" in transfer else ""
    for model, predictions in answers.predictions.items():
        sets = [("image", "clean", predictions[predictions["split"] == "test"])]
        if crossed is not None:
            own = name_of(*model)
            sets.append(("image", attacked, crossed[(crossed["source"] == own) & (crossed["judge"] == own)]))
        if (patients := answers.patients.get(model)) is not None:
            sets.append(("patient", "clean", patients[patients["split"] == "test"]))
        if (patients := answers.patients_scored.get(model)) is not None:
            sets.append(("patient", attacked, patients))
        run.scored[model] = [_scored(*each, resamples, confidence) for each in sets if len(each[-1])]
        first = next(iter(run.scored[model]), None)
        if first and (first.unit, first.images) == ("image", "clean"):
            run.clean_record(*model)["auroc_ci"] = first.auroc_ci


def _scored(unit: str, images: str, table: pd.DataFrame, resamples: int, confidence: float) -> Scored:
    labels, patients = table["label"].to_numpy(), table["patient"].to_numpy().astype(str)
    logprobs = log_probabilities(table)
    interval = auroc_ci(labels, logprobs, patients, resamples=resamples, confidence=confidence)
    right = logprobs.argmax(1) == labels
    measures = {"accuracy": float(right.mean()), "accuracy_ci": share_ci(right, labels, patients, confidence)}
    measures |= calibration(labels, logprobs, patients, resamples=resamples, confidence=confidence)
    return Scored(unit, images, labels, patients, logprobs, auroc(labels, logprobs), interval, measures)


def log_probabilities(table: pd.DataFrame) -> np.ndarray:
    """The columns `logprob_<k>` of a table of predictions, n×K."""
    return table[[name for name in table if str(name).startswith("logprob_")]].to_numpy(float)
