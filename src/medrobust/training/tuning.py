"""Search a backbone's hyper-parameters with Optuna; the first trial is the `train` block itself."""

import time
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from medrobust.data.store import Subset
from medrobust.errors import UserError
from medrobust.models.build import build_classifier
from medrobust.params.schema import override
from medrobust.params.training import AugmentParams, ModelParams, SearchSpace, TrainParams, TuneParams
from medrobust.records import atomic_dir, write_json, write_table
from medrobust.runtime import WORK, device, say, seed_everything
from medrobust.training.loop import Job, class_weights, fit, resume_key
from medrobust.training.objectives import clean_objective

#: What the study may set.
TUNED = ("lr", "optimiser", "batch_size", "scheduler")


def tune_stage(
    backbone: str, subsets: dict[str, Subset], hashes: dict[str, str], *, out: Path, metrics: Path, plots: Path,
    seed: int, model: ModelParams, train: TrainParams, tune: TuneParams, augment: AugmentParams,
) -> None:  # fmt: skip
    """Run (or go on with) the study and write `best.json`, `trials.csv`, metrics and the history plot."""
    begin = time.monotonic()
    base = override(train, model.train, f"models.{backbone}.train")
    facts = {
        "seed": seed, **hashes, "model": model.model_dump(), "train": base.model_dump(),
        "tune": tune.model_dump(exclude={"trials"}), "augment": augment.model_dump(),
    }  # fmt: skip
    study = _open_study(resume_key(facts), base, tune.space, seed)

    def objective(trial: optuna.Trial) -> float:
        chosen = suggest(trial, tune.space)
        say(f"{backbone} trial {trial.number}: " + ", ".join(f"{k} {v}" for k, v in chosen.items()))
        settings = override(base, {**chosen, "epochs": tune.epochs}, "tune")
        seed_everything(seed)
        classifier = build_classifier(model, subsets["train"].classes).to(device())
        weight = class_weights(subsets["train"], settings.class_weights, device())
        loss = clean_objective(weight, settings.label_smoothing)
        job = Job(classifier, subsets["train"], subsets["val"], settings, augment, loss, None, seed)

        def on_epoch(epoch: int, value: float) -> None:
            trial.report(value, epoch)
            if epoch + 1 < tune.epochs and trial.should_prune():
                raise optuna.TrialPruned

        return fit(job, on_epoch).best_value

    done = len([trial for trial in study.trials if trial.state.is_finished()])
    # A diverging trial is a finding of the study, not its end.
    study.optimize(objective, n_trials=max(tune.trials - done, 0), catch=(UserError,))
    _write(study, backbone, base, out, metrics, plots, time.monotonic() - begin)


def suggest(trial: optuna.Trial, space: SearchSpace) -> dict[str, Any]:
    """One point of the search space."""
    return {
        "lr": trial.suggest_float("lr", *space.lr, log=True),
        "optimiser": trial.suggest_categorical("optimiser", space.optimiser),
        "batch_size": trial.suggest_categorical("batch_size", space.batch_size),
        "scheduler": trial.suggest_categorical("scheduler", space.scheduler),
    }


def _open_study(key: str, base: TrainParams, space: SearchSpace, seed: int) -> optuna.Study:
    """The study of this key in its journal file, with the block's own values as first trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = WORK / "studies" / f"{key}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.create_study(
        study_name=key, storage=optuna.storages.JournalStorage(backend), direction="maximize", load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
    )  # fmt: skip
    if not study.trials:
        own = base.model_dump(include=set(TUNED))
        inside = space.lr[0] <= own["lr"] <= space.lr[1]
        listed = all(own[key] in getattr(space, key) for key in TUNED[1:])
        if inside and listed:
            study.enqueue_trial(own)
    return study


def _write(
    study: optuna.Study,
    backbone: str,
    base: TrainParams,
    out: Path,
    metrics: Path,
    plots: Path,
    seconds: float,
) -> None:
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    best = max(complete, key=lambda trial: trial.value or 0.0, default=None)
    chosen = {**base.model_dump(include=set(TUNED)), **(best.params if best else {})}
    value = best.value if best else None
    rows = [
        {
            "trial": t.number,
            "state": t.state.name.lower(),
            "value": t.value,
            **{k: t.params.get(k) for k in TUNED},
        }
        for t in study.trials
    ]
    trials = pd.DataFrame(rows, columns=["trial", "state", "value", *TUNED])
    with atomic_dir(out) as temporary:
        write_json(temporary / "best.json", {**chosen, "value": value, "trial": best.number if best else None})
        write_table(temporary / "trials.csv", trials)
    with atomic_dir(plots) as temporary:
        write_table(temporary / "trials.csv", trials)
    counts = trials["state"].value_counts().to_dict() if len(trials) else {}
    summary = {
        "best_val_balanced_accuracy": value,
        "trials": len(trials),
        **counts,
        "seconds": round(seconds, 1),
    }
    write_json(metrics, summary, digits=4)
    say(f"{backbone}: best {chosen}")
