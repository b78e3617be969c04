"""Studies start with the `train` block, resume after a kill, record failures, and share work between processes."""

import logging
import multiprocessing
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from medrobust.core import runtime
from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams, TuneParams
from medrobust.core.records import read_json, read_metrics, read_table
from medrobust.training import loop, trials, tuning
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.run import PreparedImages
from medrobust.training.settings import TrainingSettings
from medrobust.training.state import FitResult, TrainingState
from medrobust.training.trials import TuningStudy, finished_trials, replay_sampler, suggest
from medrobust.training.tuning import TuneOutputs, tune_stage
from tests.training.conftest import AUGMENT, adv, settings, subset, write_images

SPACE = {
    "lr": [1e-4, 1e-1], "optimiser": ["SGD", "Adam"], "batch_size": [16, 32],
    "scheduler": ["StepLR", "CosineAnnealingLR"],
}  # fmt: skip


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder with the prepared store and the split of the small job."""
    write_images(tmp_path, subset())
    return tmp_path


def make_study(folder: Path, count: int, robust: bool = False, epochs: int = 1, **changes: Any) -> TuningStudy:
    block: dict[str, Any] = {
        "trials": count, "epochs": epochs, "space": SPACE, "objective": "robust" if robust else "clean",
        "batches": None, "val_batches": None, **changes,
    }  # fmt: skip
    resolved = TrainingSettings(
        backbone="b", model=ModelParams(timm="resnet10t", weights="none", image_size=16),
        train=settings(lr=1e-2), objective=OBJECTIVES["cross_entropy"], tune=TuneParams.model_validate(block),
        adv=adv(steps=1) if robust else None, adv_objective=OBJECTIVES["mixed"] if robust else None,
    )  # fmt: skip
    return TuningStudy(resolved, folder / "data" / "prepared", folder / "data" / "split.csv", 0, AUGMENT)


def tune(folder: Path, count: int, **options: Any) -> None:
    tune_stage(
        make_study(folder, count, **options), TuneOutputs(folder / "out", folder / "m.json", folder / "plots")
    )


def test_a_study_starts_with_the_train_block_and_continues(prepared: Path) -> None:
    tune(prepared, 1)
    first = read_json(prepared / "out" / "best.json")
    assert (first["lr"], first["optimiser"], first["batch_size"], first["trial"]) == (0.01, "Adam", 16, 0)
    tune(prepared, 3)
    table = read_table(prepared / "out" / "trials.csv")
    assert list(table["trial"]) == [0, 1, 2]
    assert read_json(prepared / "out" / "best.json")["value"] >= first["value"]
    assert read_metrics(prepared / "m.json")["trials"] == 3


def test_a_killed_study_ends_like_an_uninterrupted_one(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune(prepared, 3, epochs=2)
    expected = (prepared / "out" / "trials.csv").read_text()
    (prepared / "again").mkdir()
    monkeypatch.chdir(prepared / "again")
    save, saved = TrainingState.save, []

    def save_and_die(state: TrainingState, key: str) -> None:
        save(state, key)
        saved.append(key)
        if len(saved) in {1, 4}:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "save", save_and_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(prepared, 3, epochs=2)
    tune(prepared, 3, epochs=2)
    assert (prepared / "out" / "trials.csv").read_text() == expected
    assert not list(Path("tmp/resume").glob("*")), "a finished trial leaves a resume file"


def test_the_replayed_sampler_continues_the_sequence_of_draws() -> None:
    space = make_study(Path(), 1).tune.space
    sampler = optuna.samplers.TPESampler(seed=3)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        return float(suggest(trial, space)["lr"])

    study.optimize(objective, n_trials=14)  # ten are drawn at random, the others from the model
    study.sampler = replay_sampler(study, 3, space, None)
    study.optimize(objective, n_trials=3)
    whole = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=3))
    whole.optimize(objective, n_trials=17)
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]


def test_a_diverging_trial_is_recorded_and_without_trials_the_train_block_is_used(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(prepared, 0)
    assert read_json(prepared / "out" / "best.json")["lr"] == 0.01
    monkeypatch.setattr(loop, "DIVERGED", 0.0)
    tune(prepared, 2)
    assert read_metrics(prepared / "m.json")["fail"] == 2
    assert read_json(prepared / "out" / "best.json")["value"] is None


def test_an_out_of_memory_trial_is_recorded_and_the_study_continues(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(job: loop.Job, on_epoch: Any = None) -> FitResult:
        result = loop.fit(job, on_epoch)
        models.append(weakref.ref(job.model))
        if job.settings.optimiser == "SGD":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
        return result

    models: list[Any] = []
    monkeypatch.setattr(trials, "fit", out_of_memory)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append([ref() for ref in models]))
    monkeypatch.setattr(
        logging.root.manager, "disable", logging.CRITICAL
    )  # pytest keeps references to logged errors
    alive: list[Any] = []
    tune(prepared, 4)
    table = read_table(prepared / "out" / "trials.csv")
    assert set(table["state"][table["optimiser"] == "SGD"]) == {"fail"}
    assert set(table["state"][table["optimiser"] == "Adam"]) == {"complete"}
    study = trials.open_study(next(Path("tmp/studies").glob("*.log")).stem)
    assert {t.user_attrs["error"] for t in study.trials if t.state.name == "FAIL"} == {
        "train.batch_size: batches of 16 images do not fit the device's memory (CUDA out of memory. Tried to "
        "allocate 20.00 GiB). Use smaller ones (a study draws from tune.space.batch_size), or precision: bf16 "
        "with adv.attack_precision: train, and check with `nvidia-smi` who else uses the device"
    }
    assert not list(Path("tmp/resume").glob("*")), "a failed trial leaves a resume file"
    assert len(alive) == 4
    assert not any(model for after_trial in alive for model in after_trial), (
        "memory was freed while a trial's network was still referenced"
    )
    before = table.to_csv()
    tune(prepared, 4)
    assert read_table(prepared / "out" / "trials.csv").to_csv() == before, "a failed trial ran again"


def test_an_error_that_other_values_cannot_fix_ends_the_study(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise UserError("device", "no GPU", "Set MEDROBUST_DEVICE")

    monkeypatch.setattr(trials, "fit", fail)
    with pytest.raises(UserError, match="no GPU"):
        tune(prepared, 2)
    study = trials.open_study(next(Path("tmp/studies").glob("*.log")).stem)
    assert [trial.state.name for trial in study.trials] == ["FAIL"]
    assert not finished_trials(study), "the trial must run again once the machine is fixed"


def test_a_bad_trial_is_pruned_after_its_first_epoch(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.9, 0.9, 0.8, 0.8, 0.1])
    monkeypatch.setattr(loop, "validate", lambda *_: next(values))
    tune(prepared, 3, epochs=2)
    table = read_table(prepared / "out" / "trials.csv")
    assert list(table["state"]) == ["complete", "complete", "pruned"]
    assert read_metrics(prepared / "m.json")["pruned"] == 1


def test_a_robust_study_trains_and_validates_under_attack(prepared: Path) -> None:
    tune(prepared, 1, robust=True)
    study = trials.open_study(next(Path("tmp/studies").glob("*.log")).stem)
    assert finished_trials(study)[0].value is not None
    assert read_json(prepared / "out" / "best.json")["value"] == finished_trials(study)[0].value


def test_a_trial_has_a_budget_of_batches(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[loop.Job] = []

    def spy(job: loop.Job, on_epoch: Any = None) -> FitResult:
        jobs.append(job)
        return loop.fit(job, on_epoch)

    monkeypatch.setattr(trials, "fit", spy)
    tune(prepared, 1, batches=1, val_batches=1, space={**SPACE, "batch_size": [4]})
    tune(prepared, 1)
    assert [(job.batches, len(job.val)) for job in jobs] == [(1, 4), (None, 16)]
    assert set(jobs[0].val.ids) < set(jobs[1].val.ids)


def test_figures_and_importance_are_written(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.7, 0.6, 0.8, 0.4])
    monkeypatch.setattr(loop, "validate", lambda *_: next(values))
    tune(prepared, 5)
    importance = read_table(prepared / "plots" / "importance.csv")
    assert set(importance["parameter"]) == {"lr", "optimiser", "batch_size", "scheduler"}
    assert importance["importance"].sum() == pytest.approx(1.0)
    assert (prepared / "plots" / "study.png").read_bytes().startswith(b"\x89PNG")


def test_importance_needs_more_trials_than_hyper_parameters(prepared: Path) -> None:
    tune(prepared, 2)
    assert (prepared / "plots" / "study.png").read_bytes().startswith(b"\x89PNG")
    assert not (prepared / "plots" / "importance.csv").exists()


def test_a_study_can_be_stored_in_a_database(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{prepared}/studies.db"
    monkeypatch.setenv("MEDROBUST_STUDIES", url)
    tune(prepared, 2)
    names = optuna.get_all_study_names(url)
    assert len(names) == 1
    assert names[0].startswith("b-")
    assert len(optuna.load_study(study_name=names[0], storage=url).trials) == 2


def test_a_trial_whose_worker_died_is_not_finished(prepared: Path) -> None:
    study = make_study(prepared, 2).open()
    study.ask()  # stays in state RUNNING: its process is gone
    tune(prepared, 2)
    assert read_metrics(prepared / "m.json")["trials"] == 2
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.slow
def test_several_workers_share_one_study_and_run_no_extra_trial(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDROBUST_WORKERS", "2")
    tune(prepared, 5)
    assert read_metrics(prepared / "m.json")["trials"] == 5
    study = trials.open_study(next(Path("tmp/studies").glob("*.log")).stem)
    assert len(finished_trials(study)) == 5
    assert len({trial.params["lr"] for trial in finished_trials(study)}) == 5


class SleepingStudy:
    """A study that never ends, for a worker process."""

    def run(self, single_process: bool) -> None:
        runtime.say(f"{single_process} {os.environ['LOCAL_RANK']}")
        time.sleep(120)


def start_a_worker() -> None:
    process = multiprocessing.get_context("spawn").Process(target=tuning._work, args=(SleepingStudy(), 3))
    process.start()
    process.join()


@pytest.mark.slow
def test_a_worker_ends_with_its_stage_and_has_its_own_gpu(root: Path) -> None:
    code = "from tests.training.test_tuning import start_a_worker as start; start()"
    stage = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
    )  # fmt: skip
    assert stage.stdout is not None
    assert stage.stdout.readline() == "False 3\n"
    stage.kill()
    begin = time.monotonic()
    assert stage.stdout.read() == "", "the pipe closes when the worker, which holds it too, has ended"
    assert time.monotonic() - begin < 30
    stage.wait()


def test_a_study_is_prepared_without_opening_images(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU they would be copied there and take memory from the trials."""

    def refuse(*_: Any) -> None:
        raise AssertionError("images were opened")

    monkeypatch.setattr(PreparedImages, "open", refuse)
    tuning = make_study(prepared, 1)
    tuning.prepare()
    assert [trial.state.name for trial in tuning.open().trials] == ["WAITING"]


def test_an_invalid_number_of_workers_is_refused(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDROBUST_WORKERS", "two")
    with pytest.raises(UserError, match=r"MEDROBUST_WORKERS: 'two'.*1, 2"):
        tune(prepared, 1)


def test_a_queued_run_continues_the_study_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC deletes the copy of the workspace in which a failed run has worked."""
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    trials.open_study("one").enqueue_trial({})
    monkeypatch.chdir(tmp_path)
    assert len(trials.open_study("one").trials) == 1
    assert (tmp_path / "tmp" / "studies" / "one.log").is_file()
