"""The tuning stage: run a backbone's study, in one process or several, and write what it found."""

import multiprocessing
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import TrialState

from medrobust.core.errors import UserError
from medrobust.core.metrics import round_best
from medrobust.core.records import atomic_dir, atomic_file, write_json, write_metrics, write_table
from medrobust.core.runtime import say
from medrobust.training.trials import TUNED, Trials, counted, shared


@dataclass(frozen=True)
class Outs:
    """Where the stage writes."""

    out: Path
    metrics: Path
    plots: Path


def tune_stage(trials: Trials, outs: Outs) -> None:
    """Run (or go on with) the study and write `best.json`, `trials.csv`, metrics and plots.

    `MEDROBUST_WORKERS` processes work on it at once (default 1). `MEDROBUST_STUDIES`, the URL of a database,
    lets many machines work on it; each ends when the study has its trials.
    """
    workers = _workers()
    alone = workers == 1 and not shared()
    trials.prepare()
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_work, args=(trials, number)) for number in range(1, workers)]
    for process in others:
        process.start()
    study = trials.run(alone)
    for process in others:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a worker of the study ended with {process.exitcode}")
    _write(trials, study, outs)


def _workers() -> int:
    text = os.environ.get("MEDROBUST_WORKERS", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(
            "MEDROBUST_WORKERS", f"{text!r}", "Say how many processes tune a backbone at once: 1, 2, ..."
        )
    return int(text)


def _work(trials: Trials, number: int) -> None:
    """Take trials until there are enough; of the machine's GPUs the one after the other workers'."""
    os.environ["LOCAL_RANK"] = str(number)
    threading.Thread(target=_end_with_the_stage, daemon=True).start()
    trials.run(alone=False)


def _end_with_the_stage() -> None:
    """End this process if the stage's is killed: the lock goes with it, and the next run takes up its trials."""
    stage = multiprocessing.parent_process()
    assert stage is not None, "a worker has been started by the stage"
    stage.join()
    os._exit(1)


def _write(trials: Trials, study: optuna.Study, outs: Outs) -> None:
    found = counted(study)
    complete = [(number, t) for number, t in enumerate(found) if t.state == TrialState.COMPLETE]
    number, best = max(complete, key=lambda pair: pair[1].value or 0.0, default=(None, None))
    chosen = {**trials.settings.train.model_dump(include=set(TUNED)), **(best.params if best else {})}
    value = best.value if best else None
    table = _table(found)
    with atomic_dir(outs.out) as temporary:
        write_json(temporary / "best.json", {**chosen, "value": value, "trial": number})
        write_table(temporary / "trials.csv", table)
    with atomic_dir(outs.plots) as temporary:
        write_table(temporary / "trials.csv", table)
        _write_figures(temporary, found)
    counts = table["state"].value_counts().to_dict() if len(table) else {}
    summary = {
        "best_val_balanced_accuracy": value,
        "trials": len(table),
        **{str(state): count for state, count in counts.items()},
    }
    write_metrics(outs.metrics, summary, {f"val_{trials.tune.objective}": round_best(value)})
    say(f"{trials.settings.backbone}: best {chosen}")


def _table(found: list[optuna.trial.FrozenTrial]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"trial": n, "state": t.state.name.lower(), "value": t.value, **{k: t.params.get(k) for k in TUNED}}
        for n, t in enumerate(found)
    ]
    return pd.DataFrame(rows, columns=["trial", "state", "value", *TUNED])


def _write_figures(folder: Path, found: list[optuna.trial.FrozenTrial]) -> None:
    """The history of the study, and from enough trials which hyper-parameter made the difference (fANOVA)."""
    complete = [trial for trial in found if trial.state == TrialState.COMPLETE]
    if not complete:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    importance = _importance(found, complete)
    figure, axes = plt.subplots(1, 2 if importance else 1, figsize=(10 if importance else 5, 4), squeeze=False)
    left, right = axes[0, 0], axes[0, -1]
    values = [trial.value for trial in complete]
    left.plot([found.index(trial) for trial in complete], values, "o", label="trial")
    left.step([found.index(t) for t in complete], pd.Series(values).cummax(), where="post", label="best so far")
    left.set(xlabel="trial", ylabel="validation balanced accuracy")
    left.legend()
    if importance:
        content = pd.DataFrame(importance.items(), columns=["parameter", "importance"])
        write_table(folder / "importance.csv", content)
        right.barh(list(importance), list(importance.values()))
        right.set(xlabel="importance (fANOVA)")
    with atomic_file(folder / "study.png") as temporary:
        figure.tight_layout()
        figure.savefig(temporary, dpi=100)
    plt.close(figure)


def _importance(
    found: list[optuna.trial.FrozenTrial], complete: list[optuna.trial.FrozenTrial]
) -> dict[str, float]:
    """Each hyper-parameter's share of the variance; {} where trials are fewer than what they would tell apart."""
    if len(complete) <= len(TUNED) or len({trial.value for trial in complete}) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    study = optuna.create_study(direction="maximize")
    study.add_trials(found)
    found_by: dict[str, float] = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return found_by
