"""The tuning stage: run a backbone's study in one or more processes, and write its results."""

import multiprocessing
import os
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON, TABLES, table_hashes
from medrobust.core.metrics import round_best
from medrobust.core.records import atomic_dir, atomic_file, write_json, write_metrics, write_table
from medrobust.core.runtime import lasting_folder, say, stage_lock
from medrobust.data.store import open_splits
from medrobust.training.trials import TUNED_KEYS, TuningStudy, finished_trials, uses_database


@dataclass(frozen=True)
class TuneOutputs:
    """Paths that the tuning stage writes."""

    out: Path
    metrics: Path
    plots: Path


def tune_stage(tuning: TuningStudy, outputs: TuneOutputs) -> None:
    """Run or resume the study and write `best.json`, `trials.csv`, metrics and plots.

    `MEDROBUST_WORKERS` processes work on it at once (default 1). With `MEDROBUST_STUDIES`, the URL of a database,
    several machines can work on it; each ends when the study has all its trials. In a journal, one stage works on
    it at a time. Another one, of a queued run with the same values, waits, and then finds the trials.
    """
    with nullcontext() if uses_database() else stage_lock(f"study-{tuning.name}", lasting_folder()):
        study = _run(tuning)
    _write(tuning, study, outputs)


def _run(tuning: TuningStudy) -> optuna.Study:
    workers = _worker_count()
    single_process = workers == 1 and not uses_database()
    tuning.prepare()
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_work, args=(tuning, number), daemon=True) for number in range(1, workers)]
    for process in others:
        process.start()
    study = tuning.run(single_process)
    for process in others:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a worker of the study ended with exit code {process.exitcode}")
    return study


def _worker_count() -> int:
    text = os.environ.get("MEDROBUST_WORKERS", "1")
    if not text.isdecimal() or int(text) < 1:
        remedy = "Set it to the number of processes that tune a backbone at once: 1, 2, ..."
        raise UserError("MEDROBUST_WORKERS", f"{text!r}", remedy)
    return int(text)


def _work(tuning: TuningStudy, number: int) -> None:
    """Run trials in worker process `number`, which also selects its GPU, until the study has enough."""
    os.environ["LOCAL_RANK"] = str(number)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    tuning.run(single_process=False)


def _exit_with_parent() -> None:
    """End this process when the stage is killed, so that its lock is free and the next run redoes the trials."""
    stage = multiprocessing.parent_process()
    assert stage is not None, "a worker has been started by the stage"
    stage.join()
    os._exit(1)


def _write(tuning: TuningStudy, study: optuna.Study, outputs: TuneOutputs) -> None:
    trials = finished_trials(study)
    complete = [(number, t) for number, t in enumerate(trials) if t.state == TrialState.COMPLETE]
    number, best = max(complete, key=lambda pair: pair[1].value or 0.0, default=(None, None))
    values = {**tuning.settings.train.model_dump(include=set(TUNED_KEYS)), **(best.params if best else {})}
    best_value = best.value if best else None
    table = _table(trials)
    with atomic_dir(outputs.out) as temporary:
        write_json(temporary / "best.json", {**values, "value": best_value, "trial": number})
        write_table(temporary / "trials.csv", table)
    with atomic_dir(outputs.plots) as temporary:
        write_table(temporary / "trials.csv", table)
        _write_figures(temporary, trials)
    counts = {str(state): count for state, count in table["state"].value_counts().items()}
    made_on = open_splits(tuning.prepared, tuning.split).hashes
    summary = {"best_val_balanced_accuracy": best_value, "trials": len(table), **counts}
    summary |= {MADE_ON: made_on, TABLES: table_hashes(outputs.plots / "trials.csv")}
    write_metrics(outputs.metrics, summary, {f"val_{tuning.tune.objective}": round_best(best_value)})
    say(f"{tuning.settings.backbone}: best {values}")


def _table(trials: list[FrozenTrial]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"trial": n, "state": t.state.name.lower(), "value": t.value, **{k: t.params.get(k) for k in TUNED_KEYS}}
        for n, t in enumerate(trials)
    ]
    return pd.DataFrame(rows, columns=["trial", "state", "value", *TUNED_KEYS])


def _write_figures(folder: Path, trials: list[FrozenTrial]) -> None:
    """Plot the history of the study and, with enough trials, the importance of each hyper-parameter (fANOVA)."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        return
    from matplotlib.figure import Figure

    importance = _importance(trials, complete)
    figure = Figure(figsize=(10 if importance else 5, 4))
    axes = figure.subplots(1, 2 if importance else 1, squeeze=False)
    left, right = axes[0, 0], axes[0, -1]
    values = [trial.value for trial in complete]
    left.plot([trials.index(trial) for trial in complete], values, "o", label="trial")
    left.step([trials.index(t) for t in complete], pd.Series(values).cummax(), where="post", label="best so far")
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


def _importance(trials: list[FrozenTrial], complete: list[FrozenTrial]) -> dict[str, float]:
    """Each hyper-parameter's share of the variance; {} if there are too few complete trials to estimate it."""
    if len(complete) <= len(TUNED_KEYS) or len({trial.value for trial in complete}) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
