"""Studies start from the block, go on where they stopped, record what fails, and share their work."""

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
from medrobust.training.run import Images
from medrobust.training.settings import Settings
from medrobust.training.state import Fit, State
from medrobust.training.trials import Trials, counted, replayed, suggest
from medrobust.training.tuning import Outs, tune_stage
from tests.training.conftest import AUGMENT, adv, settings, subset, write_images

SPACE = {
    "lr": [1e-4, 1e-1], "optimiser": ["SGD", "Adam"], "batch_size": [16, 32],
    "scheduler": ["StepLR", "CosineAnnealingLR"],
}  # fmt: skip


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A store of the small job's images and its split, where `Trials` finds them."""
    write_images(tmp_path, subset())
    return tmp_path


def make_trials(folder: Path, count: int, robust: bool = False, epochs: int = 1) -> Trials:
    block: dict[str, Any] = {
        "trials": count, "epochs": epochs, "space": SPACE, "objective": "robust" if robust else "clean",
    }  # fmt: skip
    chosen = Settings(
        backbone="b", model=ModelParams(timm="resnet10t", weights="none", image_size=16),
        train=settings(lr=1e-2), objective=OBJECTIVES["cross_entropy"], tune=TuneParams.model_validate(block),
        adv=adv(steps=1) if robust else None, adv_objective=OBJECTIVES["mixed"] if robust else None,
    )  # fmt: skip
    return Trials(chosen, folder / "data" / "prepared", folder / "data" / "split.csv", 0, AUGMENT)


def tune(folder: Path, count: int, **options: Any) -> None:
    tune_stage(make_trials(folder, count, **options), Outs(folder / "out", folder / "m.json", folder / "plots"))


def test_a_study_starts_from_the_block_and_goes_on(prepared: Path) -> None:
    tune(prepared, 1)
    first = read_json(prepared / "out" / "best.json")
    assert (first["lr"], first["optimiser"], first["batch_size"], first["trial"]) == (0.01, "Adam", 16, 0)
    tune(prepared, 3)
    table = read_table(prepared / "out" / "trials.csv")
    assert list(table["trial"]) == [0, 1, 2]
    assert read_json(prepared / "out" / "best.json")["value"] >= first["value"]
    assert read_metrics(prepared / "m.json")["trials"] == 3


def test_a_killed_study_draws_and_finds_what_an_undisturbed_one_does(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(prepared, 3, epochs=2)
    expected = (prepared / "out" / "trials.csv").read_text()
    (prepared / "again").mkdir()
    monkeypatch.chdir(prepared / "again")
    keep, kept = State.keep, []

    def die(state: State, key: str) -> None:
        keep(state, key)
        kept.append(key)
        if len(kept) in {1, 4}:
            raise KeyboardInterrupt

    monkeypatch.setattr(State, "keep", die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(prepared, 3, epochs=2)
    tune(prepared, 3, epochs=2)
    assert (prepared / "out" / "trials.csv").read_text() == expected
    assert not list(Path("tmp/resume").glob("*")), "a finished trial keeps no state"


def test_the_replayed_sampler_draws_on_where_the_study_stopped() -> None:
    space = make_trials(Path(), 1).tune.space
    sampler = optuna.samplers.TPESampler(seed=3)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        return float(suggest(trial, space)["lr"])

    study.optimize(objective, n_trials=14)  # ten are drawn blindly, the others by the model
    study.sampler = replayed(study, 3, space, None)
    study.optimize(objective, n_trials=3)
    whole = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=3))
    whole.optimize(objective, n_trials=17)
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]


def test_a_diverging_trial_is_recorded_and_no_trial_means_the_block(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(prepared, 0)
    assert read_json(prepared / "out" / "best.json")["lr"] == 0.01
    monkeypatch.setattr(loop, "DIVERGED", 0.0)
    tune(prepared, 2)
    assert read_metrics(prepared / "m.json")["fail"] == 2
    assert read_json(prepared / "out" / "best.json")["value"] is None


def test_a_trial_that_the_memory_does_not_hold_is_recorded_and_the_study_goes_on(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(job: loop.Job, on_epoch: Any = None) -> Fit:
        result = loop.fit(job, on_epoch)
        held.append(weakref.ref(job.model))
        if job.settings.optimiser == "SGD":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
        return result

    held: list[Any] = []
    monkeypatch.setattr(trials, "fit", full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append([ref() for ref in held]))
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # pytest keeps what errors hold
    left: list[Any] = []
    tune(prepared, 4)
    table = read_table(prepared / "out" / "trials.csv")
    assert set(table["state"][table["optimiser"] == "SGD"]) == {"fail"}
    assert set(table["state"][table["optimiser"] == "Adam"]) == {"complete"}
    study = trials.open_study(next(Path("tmp/studies").glob("*.log")).stem)
    assert {t.user_attrs["error"] for t in study.trials if t.state.name == "FAIL"} == {
        "train.batch_size: batches of 16 images do not fit the device's memory (CUDA out of memory. Tried to "
        "allocate 20.00 GiB). Take smaller ones (a study draws from tune.space.batch_size), or precision: bf16 "
        "with adv.attack_precision: train, and see with `nvidia-smi` who else uses the device"
    }
    assert not list(Path("tmp/resume").glob("*")), "a failed trial keeps no state"
    assert len(left) == 4
    assert not any(model for models in left for model in models), (
        "memory was given back while a trial's network was still held"
    )
    before = table.to_csv()
    tune(prepared, 4)
    assert read_table(prepared / "out" / "trials.csv").to_csv() == before, "it is asked for again"


def test_what_no_other_trial_would_mend_ends_the_study(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise UserError("device", "no GPU", "Set MEDROBUST_DEVICE")

    monkeypatch.setattr(trials, "fit", fail)
    with pytest.raises(UserError, match="no GPU"):
        tune(prepared, 2)
    study = trials.open_study(next(Path("tmp/studies").glob("*.log")).stem)
    assert [trial.state.name for trial in study.trials] == ["FAIL"]
    assert not counted(study), "it is asked for again once the machine is mended"


def test_a_bad_trial_is_pruned_after_its_first_epoch(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.9, 0.9, 0.8, 0.8, 0.1])
    monkeypatch.setattr(loop, "validate", lambda *_: next(values))
    tune(prepared, 3, epochs=2)
    table = read_table(prepared / "out" / "trials.csv")
    assert list(table["state"]) == ["complete", "complete", "pruned"]
    assert read_metrics(prepared / "m.json")["pruned"] == 1


def test_a_robust_study_trains_and_judges_under_attack(prepared: Path) -> None:
    tune(prepared, 1, robust=True)
    study = trials.open_study(next(Path("tmp/studies").glob("*.log")).stem)
    assert counted(study)[0].value is not None
    assert read_json(prepared / "out" / "best.json")["value"] == counted(study)[0].value


def test_figures_and_importance_are_written(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.7, 0.6, 0.8, 0.4])
    monkeypatch.setattr(loop, "validate", lambda *_: next(values))
    tune(prepared, 5)
    importance = read_table(prepared / "plots" / "importance.csv")
    assert set(importance["parameter"]) == {"lr", "optimiser", "batch_size", "scheduler"}
    assert importance["importance"].sum() == pytest.approx(1.0)
    assert (prepared / "plots" / "study.png").read_bytes().startswith(b"\x89PNG")


def test_fewer_trials_than_hyper_parameters_say_nothing_of_importance(prepared: Path) -> None:
    tune(prepared, 2)
    assert (prepared / "plots" / "study.png").read_bytes().startswith(b"\x89PNG")
    assert not (prepared / "plots" / "importance.csv").exists()


def test_a_database_keeps_the_study_too(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{prepared}/studies.db"
    monkeypatch.setenv("MEDROBUST_STUDIES", url)
    tune(prepared, 2)
    names = optuna.get_all_study_names(url)
    assert len(names) == 1
    assert names[0].startswith("b-")
    assert len(optuna.load_study(study_name=names[0], storage=url).trials) == 2


def test_a_trial_that_died_with_its_worker_does_not_count(prepared: Path) -> None:
    chosen = make_trials(prepared, 2)
    study = chosen.open()
    study.ask()  # runs for ever: its process is gone
    tune(prepared, 2)
    assert read_metrics(prepared / "m.json")["trials"] == 2
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.slow
def test_several_workers_share_one_study_and_run_no_trial_too_many(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDROBUST_WORKERS", "2")
    tune(prepared, 5)
    assert read_metrics(prepared / "m.json")["trials"] == 5
    study = trials.open_study(next(Path("tmp/studies").glob("*.log")).stem)
    assert len(counted(study)) == 5
    assert len({trial.params["lr"] for trial in counted(study)}) == 5


class Sleeper:
    """Trials that take too long; a worker is handed them."""

    def run(self, alone: bool) -> None:
        runtime.say(f"{alone} {os.environ['LOCAL_RANK']}")
        time.sleep(120)


def start_a_worker() -> None:
    process = multiprocessing.get_context("spawn").Process(target=tuning._work, args=(Sleeper(), 3))
    process.start()
    process.join()


@pytest.mark.slow
def test_a_worker_ends_with_its_stage_and_has_a_gpu_of_its_own(root: Path) -> None:
    code = "from tests.training.test_tuning import start_a_worker as start; start()"
    stage = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
    )  # fmt: skip
    assert stage.stdout is not None
    assert stage.stdout.readline() == "False 3\n"
    stage.kill()
    begin = time.monotonic()
    assert stage.stdout.read() == "", "at the latest it ends here, for the worker holds the pipe too"
    assert time.monotonic() - begin < 30
    stage.wait()


def test_a_study_is_prepared_without_its_images(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU they would be copied there for nothing, and what they took would be missing when trials begin."""

    def refuse(*_: Any) -> None:
        raise AssertionError("images were opened")

    monkeypatch.setattr(Images, "open", refuse)
    own = make_trials(prepared, 1)
    own.prepare()
    assert [trial.state.name for trial in own.open().trials] == ["WAITING"]


def test_a_senseless_number_of_workers_is_refused(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDROBUST_WORKERS", "two")
    with pytest.raises(UserError, match=r"MEDROBUST_WORKERS: 'two'.*1, 2"):
        tune(prepared, 1)
