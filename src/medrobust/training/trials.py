"""The trials of a study: what one is, where the study is kept, and how it goes on after a kill.

A trial counts when it is complete, pruned, or failed by its own values (a diverging loss, a batch that the memory
does not hold). One that a kill cut short does not count: the next process asks for it again and goes on from its
last finished epoch.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from medrobust.core.params.schema import override
from medrobust.core.params.training import AugmentParams, SearchSpace, TrainParams, TuneParams
from medrobust.core.runtime import WORK, say, seed_everything
from medrobust.training.loop import DivergedError, Job, fit
from medrobust.training.memory import TooLargeError, release, within_memory
from medrobust.training.run import Images, image_hashes, new_classifier
from medrobust.training.settings import Settings
from medrobust.training.state import forget, resume_key

#: What the study may set.
TUNED = ("lr", "optimiser", "batch_size", "scheduler")
#: What fails a trial and not the study.
FAILURES = (DivergedError, TooLargeError)
#: Seconds between two signs of life of a process that works on a study in a database.
HEARTBEAT = 60
#: Seconds between two looks at trials of other machines.
WAIT = 5.0


@dataclass(frozen=True)
class Trials:
    """What decides a study; another process can be handed it.

    Attributes:
        settings: of the backbone, with `tune`.
        prepared, split: where the images are.
        seed, augment: blocks of params.yaml.
    """

    settings: Settings
    prepared: Path
    split: Path
    seed: int
    augment: AugmentParams

    @property
    def tune(self) -> TuneParams:
        """The `tune` block."""
        assert self.settings.tune is not None, "the stage `settings` writes it"
        return self.settings.tune

    def facts(self) -> dict[str, Any]:
        """All that decides a trial's result beside its hyper-parameters; how many there are does not."""
        settings = self.settings.model_dump(exclude={"tune": {"trials"}})
        hashes = image_hashes(self.prepared, self.split)
        return {"seed": self.seed, **hashes, "settings": settings, "augment": self.augment.model_dump()}

    def open(self) -> optuna.Study:
        """The study."""
        return open_study(f"{self.settings.backbone}-{resume_key(self.facts())}")

    def prepare(self) -> None:
        """Forget the trials that a kill cut short and queue the first one; before any process takes trials."""
        study = self.open()
        _forget_cut_trials(study)
        own = first_trial(self.settings.train, self.tune.space)
        if own and not any(trial.user_attrs.get("own") for trial in _standing(study, TrialState.WAITING)):
            study.enqueue_trial(own, user_attrs={"own": True})

    def run(self, alone: bool = True) -> optuna.Study:
        """Run the trials that the prepared study lacks.

        Args:
            alone: no other process works on the study: trials are drawn in one sequence of the seed, and an
                interrupted study ends as an undisturbed one. Else the sampler spreads concurrent trials.
        """
        study, images = self.open(), Images.open(self.prepared, self.split)
        own = first_trial(self.settings.train, self.tune.space)
        study.sampler = replayed(study, self.seed, self.tune.space, own) if alone else _concurrent_sampler()

        def objective(trial: optuna.Trial) -> float:
            if sum(other.number < trial.number for other in _standing(study)) >= self.tune.trials:
                raise _EnoughError
            with recorded(trial):
                return self.value(trial, images)

        while len(counted(study)) < self.tune.trials:
            if len(_standing(study)) < self.tune.trials:
                study.optimize(objective, n_trials=1, catch=(*FAILURES, _EnoughError))
                release()
            elif not shared():
                break  # another process of this stage is at the last trial; the stage waits for it
            else:
                time.sleep(WAIT)
                _forget_cut_trials(study)
        return study

    def value(self, trial: optuna.Trial, images: Images) -> float:
        """Train as the trial says and give its best validation balanced accuracy, clean or robust.

        Raises:
            DivergedError: the training diverged.
            TooLargeError: its batches do not fit the memory. Any other error ends the study.
            optuna.TrialPruned: it is worse than the median of the earlier ones.
        """
        chosen = suggest(trial, self.tune.space)
        say(f"{self.settings.backbone} trial: " + ", ".join(f"{k} {v}" for k, v in chosen.items()))
        settings = override(self.settings.train, {**chosen, "epochs": self.tune.epochs}, "tune")
        key = resume_key({**self.facts(), "trial": chosen})

        def on_epoch(epoch: int, value: float) -> None:
            trial.report(value, epoch)
            if epoch + 1 < self.tune.epochs and trial.should_prune():
                forget(key)
                raise optuna.TrialPruned

        try:
            with within_memory(settings.batch_size):
                best = fit(self.job(settings, images, key), on_epoch).best_value
        except FAILURES:
            forget(key)
            raise
        forget(key)
        return best

    def job(self, settings: TrainParams, images: Images, key: str) -> Job:
        """The training of one trial, from a new network."""
        seed_everything(self.seed)
        train, val = images.subsets["train"], images.subsets["val"]
        objective = self.settings.adv_objective or self.settings.objective
        return Job(
            new_classifier(self.settings.model, train.classes), train, val, settings, self.augment, objective,
            self.seed, adv=self.settings.adv, key=key,
        )  # fmt: skip


class _EnoughError(Exception):
    """Another process has begun the last trial meanwhile."""


@contextmanager
def recorded(trial: optuna.Trial) -> Iterator[None]:
    """Note the message of a failure that ends the trial; by the note it counts."""
    try:
        yield
    except FAILURES as error:
        trial.set_user_attr("error", str(error))
        raise


def suggest(trial: optuna.Trial, space: SearchSpace) -> dict[str, Any]:
    """One point of the search space."""
    return {
        "lr": trial.suggest_float("lr", *space.lr, log=True),
        "optimiser": trial.suggest_categorical("optimiser", space.optimiser),
        "batch_size": trial.suggest_categorical("batch_size", space.batch_size),
        "scheduler": trial.suggest_categorical("scheduler", space.scheduler),
    }


def first_trial(train: TrainParams, space: SearchSpace) -> dict[str, Any] | None:
    """The values of the `train` block, if they lie in the space."""
    own = train.model_dump(include=set(TUNED))
    inside = space.lr[0] <= own["lr"] <= space.lr[1]
    return own if inside and all(own[key] in getattr(space, key) for key in TUNED[1:]) else None


def shared() -> bool:
    """Whether studies live in a database, where other machines may work on them."""
    return "MEDROBUST_STUDIES" in os.environ


def open_study(name: str) -> optuna.Study:
    """The study of that name: in the database that `MEDROBUST_STUDIES` names, else in its own journal file."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage: optuna.storages.BaseStorage
    if shared():
        storage = optuna.storages.RDBStorage(os.environ["MEDROBUST_STUDIES"], heartbeat_interval=HEARTBEAT)
    else:
        path = WORK / "studies" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
    )  # fmt: skip


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials that count, in the order in which they began."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in study.trials if t.state in done or (t.state == TrialState.FAIL and "error" in t.user_attrs)]


def replayed(
    study: optuna.Study, seed: int, space: SearchSpace, own: dict[str, Any] | None
) -> optuna.samplers.TPESampler:
    """The seeded sampler in the state that it had after the study's counted trials.

    They are asked for again in memory, so that an interrupted study draws what an undisturbed one would have
    drawn.
    """
    sampler = optuna.samplers.TPESampler(seed=seed)
    scratch = optuna.create_study(direction="maximize", sampler=sampler)
    for past in counted(study):
        if past.user_attrs.get("own") and own:
            scratch.enqueue_trial(own)
        trial = scratch.ask()
        suggest(trial, space)
        for epoch, value in past.intermediate_values.items():
            trial.report(value, epoch)
        scratch.tell(trial, past.value if past.state == TrialState.COMPLETE else None, past.state)
    return sampler


def _concurrent_sampler() -> optuna.samplers.TPESampler:
    # Each process must draw other values; the constant liar keeps them apart where the model has a favourite.
    return optuna.samplers.TPESampler(constant_liar=True)


def _standing(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Trials that count or run, or are in one of the states."""
    known = {trial.number for trial in counted(study)}
    return [t for t in study.trials if t.number in known or t.state in (TrialState.RUNNING, *states)]


def _forget_cut_trials(study: optuna.Study) -> None:
    """Fail the trials whose process died; they carry no error and so do not count.

    In a database those whose heartbeat stopped; in a journal all that run, for the stage's lock is ours.
    """
    if shared():
        optuna.storages.fail_stale_trials(study)
        return
    for trial in study.trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
