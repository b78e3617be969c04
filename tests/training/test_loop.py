"""The loop learns, resumes bit-equally, stops on NaN and catastrophic overfitting, and keeps the best epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from medrobust.core.errors import UserError
from medrobust.core.params.training import AdvParams, AugmentParams
from medrobust.core.records import atomic_file
from medrobust.data.augment import build_augmentation
from medrobust.data.store import Subset
from medrobust.training import loop
from medrobust.training import state as training_state
from medrobust.training.loop import Job, fit, validate
from medrobust.training.objectives.base import Step
from medrobust.training.objectives.inner import validation_attack
from medrobust.training.optim import (
    build_ema,
    build_optimiser,
    build_scheduler,
    class_weights,
    precision,
)
from medrobust.training.state import TrainingState, delete_resume_file, resume_path
from medrobust.training.subsets import hide_labels, read_folder
from tests.training.conftest import AUGMENT, adv, make_job, network, settings, subset

#: Trainings that keep further state between epochs.
STATEFUL: dict[str, dict[str, Any]] = {
    "clean": {"objective": "cross_entropy"},
    "plateau": {"objective": "cross_entropy", "settings": settings(scheduler="ReduceLROnPlateau")},
    "ema": {"objective": "cross_entropy", "settings": settings(ema=0.9)},
    "scaler": {"objective": "cross_entropy", "settings": settings(precision="fp16")},
    "balanced": {"objective": "cross_entropy", "settings": settings(sampling="balanced")},
    "free": {"objective": "free", "adv": adv(replays=2)},
    "awp": {"objective": "trades", "adv": adv(awp=0.01, steps=2)},
    "ssat": {"objective": "ssat", "adv": adv(), "unlabelled": subset(20)},
}


def test_the_loop_learns_and_keeps_the_best_epoch() -> None:
    result = fit(make_job(settings=settings(epochs=12)))
    assert result.best_value > 0.95
    assert len(result.history) == 12
    assert result.history[result.best_epoch]["val_balanced_accuracy"] == result.best_value


def test_the_last_epoch_is_the_result_if_it_is_to_be_kept() -> None:
    job = make_job(settings=settings(epochs=3, keep="last", lr=0.05))
    states: list[dict[str, Any]] = []
    result = fit(job, lambda *_: states.append({k: v.clone() for k, v in job.model.state_dict().items()}))
    assert result.best_epoch == 2
    assert result.best_value == result.history[-1]["val_balanced_accuracy"]
    assert all(torch.equal(value, states[-1][key]) for key, value in job.model.state_dict().items())
    best = fit(make_job(settings=settings(epochs=3, lr=0.05)))
    assert best.best_epoch < 2, "this training has its best epoch earlier"


def test_an_epoch_has_at_most_the_batches_of_its_budget() -> None:
    batches = trainer_of(make_job(batches=2)).labelled_batches(0)
    assert [len(part) for part in batches] == [16, 16]
    all_batches = trainer_of(make_job()).labelled_batches(0)
    assert len(all_batches) == 3
    assert all(np.array_equal(one, other) for one, other in zip(batches, all_batches, strict=False))


@pytest.mark.parametrize("name", STATEFUL)
def test_an_interrupted_training_ends_like_an_uninterrupted_one(name: str) -> None:
    options = STATEFUL[name]
    whole = make_job(key="whole", **options)
    expected = fit(whole)

    def kill(epoch: int, row: dict[str, float]) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_job(key="cut", **options), kill)
    again = make_job(key="cut", model=network(), **options)
    torch.rand(7)  # other random draws in between
    epochs: list[int] = []
    result = fit(again, lambda epoch, row: epochs.append(epoch))
    assert result.history == expected.history
    assert epochs == [0, 1, 2, 3], "a study needs the values of epochs that the killed process finished"
    for one, other in zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_latest_weights_are_written_once_if_they_are_the_best() -> None:
    model = network()
    state = TrainingState.initial(model, settings(optimiser="SGD"))
    state.result.history, state.result.best_epoch = [{"loss": 1.0}], 0
    state.result.best_state = {name: value.clone() for name, value in model.state_dict().items()}
    sizes = []
    # The best epoch is the first one: at first it is also the last one.
    for history in ([{"loss": 1.0}], [{"loss": 1.0}, {"loss": 2.0}]):
        state.result.history = history
        state.save("size")
        sizes.append(resume_path("size").stat().st_size)
    once = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert sizes[1] - sizes[0] > 0.9 * once
    state.result.history = state.result.history[:1]
    state.save("size")
    again = TrainingState.initial(network(), settings(optimiser="SGD"))
    again.restore("size")
    assert all(torch.equal(again.result.best_state[name], value) for name, value in model.state_dict().items())


def test_every_process_resumes_with_its_own_objective_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """`free` keeps a perturbation of each process's images, which depend on the number of processes."""

    def initial_state() -> TrainingState:
        return TrainingState.initial(network(), settings())

    first, second = initial_state(), {"delta": (torch.ones(2), torch.full((2,), 3.0))}
    first.memory["delta"] = torch.zeros(2)
    monkeypatch.setattr(training_state, "gather", lambda value: [value, {**value, "memory": second}])
    first.save("two")
    for rank, world, expected in ((0, 2, [0.0, 0.0]), (1, 2, [1.0, 1.0]), (0, 1, None)):
        monkeypatch.setattr(training_state, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(training_state, "world_size", lambda world=world: world)
        resumed = initial_state()
        resumed.restore("two")
        delta = resumed.memory.get("delta")
        assert (None if delta is None else delta.tolist()) == expected
        if rank == 1:
            assert delta is not None
            assert delta.grad is not None
            assert delta.grad.tolist() == [3.0, 3.0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full of Linux")
def test_a_full_disk_leaves_the_old_resume_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a path, torch does not report that the disk is full."""
    calls = []

    @contextmanager
    def full(path: Path) -> Iterator[Path]:
        calls.append(path)
        with atomic_file(path) as temporary:
            if len(calls) == 2:
                temporary.symlink_to("/dev/full")
            yield temporary

    monkeypatch.setattr(training_state, "atomic_file", full)
    with pytest.raises(UserError, match=r"full\.pt: cannot be written: No space left"):
        fit(make_job(key="full"))
    assert len(torch.load(resume_path("full"), weights_only=True)["result"]["history"]) == 1
    assert not list(resume_path("full").parent.glob(".*tmp*")), "an incomplete file is left"


def test_the_resume_file_and_incomplete_writes_of_it_are_deleted() -> None:
    fit(make_job(key="done"))
    incomplete = resume_path("done").with_name(".done.4711.tmp.pt")
    incomplete.write_bytes(b"incomplete")
    other = resume_path("other")
    other.write_bytes(b"of another training")
    delete_resume_file("done")
    assert list(resume_path("done").parent.iterdir()) == [other]


def broken(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Make the loss NaN from the given step on."""
    seen = []

    def objective(step: Step) -> Tensor:
        seen.append(1)
        factor = torch.nan if len(seen) > after else 1.0
        loss: Tensor = step.model(step.images).square().mean() * factor
        return loss

    monkeypatch.setattr(loop, "load_objective", lambda entry: objective)


def test_a_nan_loss_names_epoch_step_learning_rate_and_resume_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken(monkeypatch, after=0)
    with pytest.raises(
        UserError, match=r"loss nan at epoch 1, step 1 \(no epoch was finished\).*learning rate \(now 0.01\)"
    ):
        fit(make_job())
    broken(monkeypatch, after=4)
    with pytest.raises(UserError, match=r"epoch 2, step 2 \(best so far: epoch 1, saved in tmp/resume/nan\.pt\)"):
        fit(make_job(key="nan"))
    assert resume_path("nan").is_file()


@pytest.mark.parametrize(("objective", "block"), [("cross_entropy", None), ("pgd_at", adv())])
def test_weights_that_the_last_step_made_nan_are_refused(
    objective: str, block: AdvParams | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No further loss is computed with them, and `argmax` turns NaN outputs into the first class."""
    real, steps = torch.optim.Adam.step, []

    def step(self: torch.optim.Adam) -> None:
        real(self)
        steps.append(1)
        if len(steps) == 3:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.fill_(torch.nan)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    message = r"NaN or infinite outputs for validation images at epoch 1 \(no epoch was finished\)\. Lower"
    with pytest.raises(loop.DivergedError, match=message):
        fit(make_job(objective, adv=block, settings=settings(epochs=1)))


def test_a_diverging_loss_stops_training_like_a_nan_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "DIVERGED", 0.1)
    with pytest.raises(UserError, match=r"loss 0\.\d+ at epoch 1, step 1"):
        fit(make_job())


def test_robust_validation_selects_the_best_epoch() -> None:
    result = fit(make_job("mixed", adv=adv(eps=0.02, steps=2)))
    assert all("val_robust_balanced_accuracy" in row for row in result.history)
    assert result.best_value == max(row["val_robust_balanced_accuracy"] for row in result.history)
    values = [row["val_robust_balanced_accuracy"] for row in result.history]
    assert all(r <= row["val_balanced_accuracy"] for r, row in zip(values, result.history, strict=True))


class Masked(nn.Module):
    """Correct on the clean image and at the border of the ball, wrong half-way: robust to one step, not to ten."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps, self.scale = eps, nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        bright = (images.mean((1, 2, 3)) > 0.5).float() * 2 - 1
        centre = torch.where(bright > 0, 0.75, 0.25)
        offset = (images.mean((1, 2, 3)) - centre) / self.eps
        margin = bright * torch.cos(2 * torch.pi * offset) * self.scale
        return torch.stack([-margin, margin], 1)


def flat(n: int = 12) -> Subset:
    labels = np.arange(n) % 2
    pixels = np.where(labels[:, None, None] == 1, 191, 64) * np.ones((n, 8, 8))
    ids = np.array([f"i{k}" for k in range(n)])
    return Subset(pixels.astype(np.uint8), np.arange(n), labels, ids, ids, ["dark", "bright"])


@pytest.mark.parametrize("objective", ["fgsm_rs", "n_fgsm", "free"])
def test_catastrophic_overfitting_stops_single_step_training(
    objective: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its gradients are masked from the second epoch on; the robust accuracy of the first epoch is 1."""
    block, values = adv(eps=0.1, steps=1), iter([1.0, 1.0])
    real = loop.validate

    def first_then_real(*arguments: Any) -> float:
        return next(values, None) or real(*arguments)

    monkeypatch.setattr(loop, "validate", first_then_real)
    no_augmentation = AUGMENT.model_copy(update={"p": 0.0})
    job = make_job(
        objective, model=Masked(0.1), train=flat(), val=flat(), adv=block, augment=no_augmentation, key="co",
        settings=settings(lr=1e-6, epochs=5),
    )  # fmt: skip
    result = fit(job)
    assert len(result.history) == 2
    assert result.best_epoch == 0
    assert "catastrophic overfitting at epoch 2: robust balanced accuracy 1.000 under one step" in result.stopped
    assert result.stopped in capsys.readouterr().out
    assert len(fit(job).history) == 2, "a stopped training must not continue when its stage runs again"


def test_catastrophic_overfitting_is_detected_without_an_earlier_good_epoch() -> None:
    no_augmentation = AUGMENT.model_copy(update={"p": 0.0})
    job = make_job(
        "fgsm_rs", model=Masked(0.1), train=flat(), val=flat(), adv=adv(eps=0.1, steps=1), augment=no_augmentation,
        settings=settings(lr=1e-6, epochs=4),
    )  # fmt: skip
    result = fit(job)
    assert [row["val_robust_balanced_accuracy"] for row in result.history] == [0.0]
    assert result.best_epoch == 0
    assert "at epoch 1: robust balanced accuracy 1.000 under one step and 0.000" in result.stopped
    assert "no earlier epoch was better" in result.stopped


@pytest.mark.parametrize(
    ("clean", "single", "pgd", "best", "detected"),
    [
        (0.9, 0.85, 0.1, -1.0, True),
        (0.9, 0.5, 0.1, -1.0, False),  # not robust to any attack yet
        (0.9, 0.5, 0.1, 0.5, True),  # it was robust before
        (0.9, 0.85, 0.44, -1.0, False),
        (0.9, 0.15, 0.1, 0.5, False),  # low under both attacks
    ],
)
def test_what_counts_as_catastrophic_overfitting(
    clean: float, single: float, pgd: float, best: float, detected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "validate", lambda *_: single)
    trainer = trainer_of(make_job("fgsm_rs", adv=adv()))
    trainer.state.result.best_value = best
    row = {"val_balanced_accuracy": clean, "val_robust_balanced_accuracy": pgd}
    assert bool(trainer.catastrophic_overfitting(3, row)) == detected


def test_a_bad_model_alone_is_no_catastrophic_overfitting() -> None:
    model = network()
    job = make_job("fgsm_rs", model=model, adv=adv(eps=0.05), settings=settings(lr=1e-6, epochs=3))
    assert fit(job).stopped == ""


@pytest.mark.parametrize("optimiser", ["SGD", "RMSprop", "Adam"])
@pytest.mark.parametrize("scheduler", ["StepLR", "CosineAnnealingLR", "ReduceLROnPlateau"])
def test_every_optimiser_and_schedule_runs(optimiser: str, scheduler: str) -> None:
    block = settings(optimiser=optimiser, scheduler=scheduler, epochs=2, lr=1e-3)
    built = build_optimiser(network(), block)
    assert type(built).__name__ == optimiser
    assert type(build_scheduler(built, block)).__name__ == scheduler
    assert len(fit(make_job(settings=block)).history) == 2


def test_fused_adam_equals_plain_adam() -> None:
    ours, plain = network().to(memory_format=torch.channels_last), network()
    block = settings(optimiser="Adam", lr=1e-3)
    one, other = build_optimiser(ours, block), torch.optim.Adam(plain.parameters(), lr=1e-3, foreach=False)
    for step in range(3):
        torch.manual_seed(step)
        for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
            theirs.grad = torch.randn_like(theirs)
            mine.grad = theirs.grad.clone()
        one.step()
        other.step()
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def uneven() -> Subset:
    data = subset()
    return Subset(
        data.store_images, data.rows, np.array([0] * 36 + [1] * 12), data.ids, data.patients, data.classes
    )


def test_class_weights_balance_the_classes() -> None:
    weight = class_weights(uneven(), "balanced", torch.device("cpu"))
    assert weight is not None
    assert weight.tolist() == pytest.approx([48 / 72, 48 / 24])
    assert class_weights(uneven(), "none", torch.device("cpu")) is None


def trainer_of(job: Job) -> loop.Trainer:
    return loop.Trainer(job, TrainingState.initial(job.model, job.settings))


def test_balanced_sampling_draws_classes_equally_often() -> None:
    job = make_job(train=uneven(), settings=settings(sampling="balanced"))
    drawn = np.concatenate([np.concatenate(trainer_of(job).labelled_batches(epoch)) for epoch in range(40)])
    assert job.train.labels[drawn].mean() == pytest.approx(0.5, abs=0.04)
    shuffled = np.concatenate(trainer_of(make_job()).labelled_batches(0))
    assert sorted(shuffled.tolist()) == list(range(48))


def test_a_batch_with_fewer_than_two_images_per_process_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(make_job(train=subset(44)))
    for processes, expected in ((1, [16, 16, 12]), (6, [16, 16, 12]), (7, [16, 16]), (8, [16, 16])):
        monkeypatch.setattr(loop, "world_size", lambda processes=processes: processes)
        assert [len(rows) for rows in trainer.labelled_batches(0)] == expected
    monkeypatch.setattr(loop, "world_size", lambda: 9)
    message = r"train\.batch_size: batches of 16 images for 9 processes, each of which needs two.*to 18 or more"
    with pytest.raises(UserError, match=message):
        trainer.labelled_batches(0)


def test_unlabelled_images_repeat_evenly() -> None:
    job = make_job("ssat", adv=adv(), unlabelled=subset(20))
    parts = trainer_of(job).unlabelled_batches(0, 3)
    assert [len(part) for part in parts] == [16, 16, 16]
    assert set(np.bincount(np.concatenate(parts), minlength=20)) <= {2, 3}


def test_the_ema_follows_the_weights_with_a_warm_up() -> None:
    model = network()
    ema = build_ema(model, 0.5)
    assert ema is not None
    assert build_ema(model, 0.0) is None
    expected = torch.zeros(())
    for count, value in enumerate([1.0, 3.0, 5.0]):
        with torch.no_grad():
            model[0].bias.fill_(value)  # type: ignore[index]
        ema.update_parameters(model)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = torch.tensor(value) if count == 0 else decay * expected + (1 - decay) * value
    assert torch.allclose(ema.module[0].bias, expected.expand(4))  # type: ignore[index]


def test_the_ema_is_validated_and_is_the_result() -> None:
    job = make_job(settings=settings(ema=0.9, epochs=2))
    result = fit(job)
    value = validate(job.model, job.val, None, job.seed)
    assert value == result.best_value == result.history[result.best_epoch]["val_balanced_accuracy"]


def test_precision_by_name() -> None:
    cpu = torch.device("cpu")
    assert precision(settings(precision="auto"), cpu) == torch.float32
    assert precision(settings(precision="bf16"), cpu) == torch.bfloat16
    assert fit(make_job(settings=settings(precision="bf16", epochs=12))).best_value > 0.9


@pytest.mark.parametrize(("generation", "expected"), [(7, torch.float32), (8, torch.bfloat16)])
def test_auto_is_bf16_on_a_gpu_that_computes_it_in_hardware(
    generation: int, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=generation))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    assert precision(settings(precision="auto"), torch.device("cuda")) == expected


def test_the_memory_format_is_set_before_training() -> None:
    job = make_job(model=network().to(memory_format=torch.channels_last), settings=settings(channels_last=False))
    fit(job)
    assert job.model[0].weight.is_contiguous()  # type: ignore[index]


def test_augmentation_keeps_shape_and_range_and_p_0_changes_nothing() -> None:
    images = torch.rand(8, 1, 16, 16)
    changed = build_augmentation(AUGMENT)(images)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.equal(changed, images)
    no_augmentation = AUGMENT.model_copy(update={"p": 0.0})
    assert torch.allclose(build_augmentation(no_augmentation)(images), images, atol=1e-6)


def test_a_single_change_has_its_own_probability() -> None:
    images = torch.rand(64, 1, 8, 8)
    only = {"horizontal_flip": 1.0}
    flipped = build_augmentation(AUGMENT.model_copy(update={"p": 0.0, "probabilities": only}))(images)
    assert torch.allclose(flipped, images.flip(3), atol=1e-6)
    torch.manual_seed(0)
    half = {"p": 0.0, "probabilities": {"gamma": 0.5}, "gamma": [2.0, 2.0]}
    result = build_augmentation(AUGMENT.model_copy(update=half))(images)
    squared = torch.isclose(result, images.square(), atol=1e-5).flatten(1).all(1)
    same = torch.isclose(result, images, atol=1e-6).flatten(1).all(1)
    assert bool((squared | same).all())
    assert 20 < int(squared.sum()) < 44
    with pytest.raises(ValidationError, match="affine"):
        AugmentParams.model_validate({**AUGMENT.model_dump(), "probabilities": {"shear": 0.1}})


def test_a_gamma_of_1_draws_no_random_number() -> None:
    """Results of runs without it do not change."""
    kinds = [type(step).__name__ for step in build_augmentation(AUGMENT).children()]
    assert "RandomGamma" not in kinds


def test_labels_are_hidden_by_patient_in_every_class() -> None:
    data = subset(48)
    patients = np.array([f"p{k // 4}-{k % 2}" for k in range(48)])  # twelve of each class, two images each
    data = Subset(data.store_images, data.rows, data.labels, data.ids, patients, data.classes)
    labelled, unlabelled = hide_labels(data, 0.5, seed=1)
    assert not set(labelled.patients) & set(unlabelled.patients)
    assert len(labelled) + len(unlabelled) == 48
    assert np.bincount(unlabelled.labels).tolist() == [12, 12]
    assert hide_labels(data, 0.5, seed=1)[1].ids.tolist() == unlabelled.ids.tolist()
    few = data.take(np.arange(4))
    with pytest.raises(UserError, match=r"0\.5 of 2 training patients selects no patient of any class"):
        hide_labels(few, 0.5, seed=1)


def test_a_folder_of_images_is_read_in_the_size_of_the_data(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a" / "b").mkdir(parents=True)
    Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(tmp_path / "a" / "b" / "x.png")
    Image.fromarray(np.full((16, 16), 10, np.uint8)).save(tmp_path / "a" / "y.PNG")
    folder = read_folder(tmp_path / "a", subset())
    assert folder.ids.tolist() == ["b/x.png", "y.PNG"]
    assert folder.batch([0, 1]).shape == (2, 1, 16, 16)
    assert folder.batch([0]).mean() == pytest.approx(90 / 255, abs=1e-3)
    (tmp_path / "a" / "z.jpg").write_bytes(b"no")
    with pytest.raises(UserError, match=r"z\.jpg: does not decode"):
        read_folder(tmp_path / "a", subset())
    with pytest.raises(UserError, match="has no images"):
        read_folder(tmp_path / "nowhere", subset())


def test_validation_steps_set_the_validation_attack() -> None:
    job = make_job("fgsm_rs", adv=adv(val_steps=7))
    assert job.adv is not None
    assert trainer_of(job).attack == validation_attack(job.adv, single_step=True)
