"""The study of a backbone: what a trial is, where the study is stored, and how it resumes after a kill.

A trial is finished if it is complete, pruned, or failed because of its own values. A trial that was cut short by a
kill is not: the next process draws it again and resumes it after its last finished epoch.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from medrobust.core.code import modules_hash
from medrobust.core.params.schema import override
from medrobust.core.params.training import AugmentParams, SearchSpace, TrainParams, TuneParams
from medrobust.core.runtime import lasting_folder, say, seed_everything
from medrobust.data.store import Subset, open_splits
from medrobust.training.loop import DivergedError, Job, fit, selection_value
from medrobust.training.out_of_memory import BatchTooLargeError, explain_out_of_memory, free_memory
from medrobust.training.run import PreparedImages, new_classifier
from medrobust.training.settings import TrainingSettings
from medrobust.training.state import delete_resume_file, resume_key

#: Keys of the `train` block that a study sets.
TUNED_KEYS = ("lr", "optimiser", "batch_size", "scheduler")
#: Errors that fail a trial but not the study.
TRIAL_ERRORS = (DivergedError, BatchTooLargeError)
#: Seconds between two heartbeats of a process that works on a study in a database.
HEARTBEAT_SECONDS = 60
#: Seconds between two checks of trials that run on other machines.
POLL_SECONDS = 5.0


@dataclass(frozen=True)
class TuningStudy:
    """What decides a study; `prepared` and `split` are paths. It can be passed to other processes."""

    settings: TrainingSettings
    prepared: Path
    split: Path
    seed: int
    augment: AugmentParams

    @property
    def tune(self) -> TuneParams:
        assert self.settings.tune is not None, "the stage `settings` writes it"
        return self.settings.tune

    def facts(self) -> dict[str, Any]:
        """All that decides the result of a trial besides its hyper-parameters; the number of trials does not."""
        settings = self.settings.model_dump(exclude={"tune": {"trials"}})
        return {
            "seed": self.seed, "settings": settings, "augment": self.augment.model_dump(),
            "code": modules_hash([__name__]), **open_splits(self.prepared, self.split).hashes,
        }  # fmt: skip

    @property
    def name(self) -> str:
        """Name of the study; it has a hash of `facts`."""
        return f"{self.settings.backbone}-{resume_key(self.facts())}"

    def open(self) -> optuna.Study:
        return open_study(self.name)

    def prepare(self) -> None:
        """Discard trials that a kill cut short and queue the first trial, before any process runs trials."""
        study = self.open()
        _discard_interrupted_trials(study)
        defaults = default_values(self.settings.train, self.tune.space)
        known = _finished_or_running(study, TrialState.WAITING)
        if defaults and not any(trial.user_attrs.get("default") for trial in known):
            study.enqueue_trial(defaults, user_attrs={"default": True})

    def run(self, single_process: bool = True) -> optuna.Study:
        """Run the trials that the prepared study lacks.

        If no other process works on the study (`single_process`), trials are drawn in one sequence of the seed,
        and an interrupted study ends like an undisturbed one.
        """
        study, images = self.open(), PreparedImages.open(self.prepared, self.split)
        space = self.tune.space
        if single_process:
            study.sampler = replay_sampler(study, self.seed, space, default_values(self.settings.train, space))
        else:
            # Unseeded, so that each process draws other values; the constant liar keeps concurrent trials apart.
            study.sampler = optuna.samplers.TPESampler(constant_liar=True)

        def objective(trial: optuna.Trial) -> float:
            if sum(other.number < trial.number for other in _finished_or_running(study)) >= self.tune.trials:
                raise _StudyFullError
            return self.evaluate(trial, images)

        while len(finished_trials(study)) < self.tune.trials:
            if len(_finished_or_running(study)) < self.tune.trials:
                study.optimize(objective, n_trials=1, catch=(*TRIAL_ERRORS, _StudyFullError))
                free_memory()
            elif not uses_database():
                break  # another process of this stage runs the last trial; the stage waits for it
            else:
                time.sleep(POLL_SECONDS)
                _discard_interrupted_trials(study)
        return study

    def evaluate(self, trial: optuna.Trial, images: PreparedImages) -> float:
        """Train with the trial's values; return the best validation balanced accuracy, clean or robust.

        Raises:
            DivergedError: the training diverged.
            BatchTooLargeError: its batches do not fit into memory. Any other error ends the study.
            optuna.TrialPruned: it is worse than the median of the earlier trials.
        """
        values = suggest(trial, self.tune.space)
        say(f"{self.settings.backbone} trial: " + ", ".join(f"{k} {v}" for k, v in values.items()))
        settings = override(self.settings.train, {**values, "epochs": self.tune.epochs}, "tune")
        key = resume_key({**self.facts(), "trial": values})

        def on_epoch(epoch: int, row: dict[str, float]) -> None:
            trial.report(selection_value(row), epoch)
            if epoch + 1 < self.tune.epochs and trial.should_prune():
                delete_resume_file(key)
                raise optuna.TrialPruned

        try:
            with explain_out_of_memory(settings.batch_size):
                seed_everything(self.seed)
                train, val = images.subsets["train"], self.validation_images(images, settings.batch_size)
                job = Job(
                    new_classifier(self.settings.model, train.classes), train, val, settings, self.augment,
                    self.settings.adv_objective or self.settings.objective, self.seed, self.settings.adv,
                    batches=self.tune.batches, key=key,
                )  # fmt: skip
                best = fit(job, on_epoch).best_value
        except TRIAL_ERRORS as error:
            delete_resume_file(key)
            trial.set_user_attr("error", str(error))  # marks the trial as finished
            raise
        delete_resume_file(key)
        return best

    def validation_images(self, images: PreparedImages, batch_size: int) -> Subset:
        """The validation images of a trial: a random draw of at most `tune.val_batches` batches, or all."""
        val = images.subsets["val"]
        if self.tune.val_batches is None:
            return val
        drawn = np.random.default_rng([self.seed, 3]).permutation(len(val))[: self.tune.val_batches * batch_size]
        return val.take(np.sort(drawn))


class _StudyFullError(Exception):
    """Another process has started the last trial in the meantime."""


def suggest(trial: optuna.Trial, space: SearchSpace) -> dict[str, Any]:
    """Draw one point of the search space."""
    return {
        "lr": trial.suggest_float("lr", *space.lr, log=True),
        "optimiser": trial.suggest_categorical("optimiser", space.optimiser),
        "batch_size": trial.suggest_categorical("batch_size", space.batch_size),
        "scheduler": trial.suggest_categorical("scheduler", space.scheduler),
    }


def default_values(train: TrainParams, space: SearchSpace) -> dict[str, Any] | None:
    """The values of the `train` block, which the first trial uses; None if they are not in the space."""
    values = train.model_dump(include=set(TUNED_KEYS))
    lr_in_range = space.lr[0] <= values["lr"] <= space.lr[1]
    return values if lr_in_range and all(values[key] in getattr(space, key) for key in TUNED_KEYS[1:]) else None


def uses_database() -> bool:
    """Whether studies are stored in a database, where other machines may work on them."""
    return "MEDROBUST_STUDIES" in os.environ


def open_study(name: str) -> optuna.Study:
    """Open or create a study in the database `MEDROBUST_STUDIES`, or in a journal file if it is not set."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage: optuna.storages.BaseStorage
    if uses_database():
        url = os.environ["MEDROBUST_STUDIES"]
        storage = optuna.storages.RDBStorage(url, heartbeat_interval=HEARTBEAT_SECONDS)
    else:
        path = lasting_folder() / "studies" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
    )  # fmt: skip


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials, in the order in which they started."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in study.trials if t.state in done or (t.state == TrialState.FAIL and "error" in t.user_attrs)]


def replay_sampler(
    study: optuna.Study, seed: int, space: SearchSpace, defaults: dict[str, Any] | None
) -> optuna.samplers.TPESampler:
    """The seeded sampler in its state after the study's finished trials.

    The trials are drawn again in memory, so that an interrupted study draws the same values as an undisturbed one.
    """
    sampler = optuna.samplers.TPESampler(seed=seed)
    scratch = optuna.create_study(direction="maximize", sampler=sampler)
    for past in finished_trials(study):
        if past.user_attrs.get("default") and defaults:
            scratch.enqueue_trial(defaults)
        trial = scratch.ask()
        suggest(trial, space)
        for epoch, value in past.intermediate_values.items():
            trial.report(value, epoch)
        scratch.tell(trial, past.value if past.state == TrialState.COMPLETE else None, past.state)
    return sampler


def _finished_or_running(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Trials that are finished, running, or in one of the given states."""
    finished = {trial.number for trial in finished_trials(study)}
    return [t for t in study.trials if t.number in finished or t.state in (TrialState.RUNNING, *states)]


def _discard_interrupted_trials(study: optuna.Study) -> None:
    """Mark trials whose process died as failed; without a stored error they do not count as finished."""
    if uses_database():
        optuna.storages.fail_stale_trials(study)  # those whose heartbeat stopped
        return
    # In a journal all running trials were interrupted, because this stage holds the study's lock.
    for trial in study.trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
