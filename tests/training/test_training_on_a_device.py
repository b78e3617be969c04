"""Training on another device equals training on the CPU, rarely waits for the device, and resumes after a kill."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medrobust.training.loop import Job, Trainer, fit
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.state import TrainingState
from tests import other_device as stand_in
from tests.other_device import There, other_device
from tests.training.conftest import adv, make_job, network, settings, subset

#: Options with further tensors on the device.
CHANGES = {"class_weights": "balanced", "sampling": "balanced", "ema": 0.5}


def job(objective: str, **changes: Any) -> Job:
    data = subset(40, classes=3)
    options: dict[str, Any] = {"train": data, "val": data, "model": network(3)}
    if OBJECTIVES[objective].attacks:
        options["adv"] = adv(replays=2, beta=1.0, steps=2, awp=0.01, batch_norm="batch", attack_precision="train")
    if objective == "ssat":
        options["unlabelled"] = data
    return make_job(
        objective, settings=settings(**{"epochs": 1, "precision": "bf16", **CHANGES, **changes}), **options
    )


def moved(job: Job, device: torch.device) -> Job:
    """The job on the device; unlabelled images stay on the CPU, like images that do not fit into memory."""
    images = job.train.resident(device)
    assert images.on_device is not None
    return replace(job, model=job.model.to(device), train=images, val=images)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_as_on_the_cpu(objective: str) -> None:
    expected = fit(job(objective)).history
    with other_device() as device:
        mine = moved(job(objective), device)
        result = fit(mine)
        assert {value.device for value in mine.model.state_dict().values()} == {device}
    assert result.history == expected


@pytest.mark.parametrize("channels_last", [True, False])
def test_batches_have_the_memory_format_of_the_weights_and_come_from_pinned_memory(
    monkeypatch: pytest.MonkeyPatch, channels_last: bool
) -> None:
    pinned: list[tuple[int, ...]] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    grey = subset(8)
    colour = replace(grey, store_images=np.repeat(grey.store_images[..., None], 3, axis=3))
    mine = make_job(train=colour, settings=settings(channels_last=channels_last))
    trainer = Trainer(mine, TrainingState.initial(mine.model, mine.settings))
    images, _, _ = trainer.load_batch(colour, np.arange(4), 0)
    assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert not pinned, "on a CPU nothing is copied"
    with other_device() as device:
        trainer.device = device
        trainer.load_batch(colour, np.arange(4), 0)
    assert pinned == [(4, 3, 16, 16), (4,), (4,)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_on_a_gpu_up_to_rounding(objective: str) -> None:
    expected = fit(job(objective, precision="fp32")).history[0]["loss"]
    mine = moved(job(objective, precision="fp32"), torch.device("cuda"))
    assert fit(mine).history[0]["loss"] == pytest.approx(expected, rel=0.02)
    assert next(mine.model.parameters()).is_cuda


@pytest.mark.parametrize("changes", [{"precision": "fp16"}, {"precision": "auto", "optimiser": "SGD"}])
def test_a_killed_training_resumes_on_the_device(changes: dict[str, Any]) -> None:
    def kill(epoch: int, row: dict[str, float]) -> None:
        raise KeyboardInterrupt

    options = {"epochs": 2, **changes}
    with other_device() as device:
        expected = fit(moved(job("free", **options), device)).history
        with pytest.raises(KeyboardInterrupt):
            fit(replace(moved(job("free", **options), device), key="cut"), kill)
        assert fit(replace(moved(job("free", **options), device), key="cut")).history == expected


def test_the_resume_file_has_the_random_state_of_the_device() -> None:
    with other_device() as device:
        state = TrainingState.initial(network().to(device), settings())
        random_state = torch.cuda.get_rng_state(device)
        state.save("there")
        torch.cuda.set_rng_state(torch.Generator().manual_seed(7).get_state(), device)
        state.restore("there")
        assert torch.equal(torch.cuda.get_rng_state(device), random_state)
    # The same file on a machine without a GPU.
    TrainingState.initial(network(), settings()).restore("there")


def test_a_step_rarely_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number that is read makes the host wait until the device has done all queued work."""
    reads: Counter[str] = Counter()
    compute = stand_in._compute

    def counting(func: Any, args: Any, kwargs: Any) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero") and isinstance(args[0], There):
            reads["read"] += 1
        return compute(func, args, kwargs)

    monkeypatch.setattr(stand_in, "_compute", counting)
    with other_device() as device:
        mine = moved(job("cross_entropy"), device)
        trainer = Trainer(mine, TrainingState.initial(mine.model, mine.settings))
        mine.model.train()
        rows = np.arange(16)
        trainer.update(trainer.make_step(0, rows, None), 0, 0)
        reads.clear()
        step = trainer.make_step(0, rows, None)
        assert reads["read"] == 0, "loading must not wait for the device"
        trainer.update(step, 0, 1)
        assert reads["read"] <= 2, "the loss, and the number of EMA updates"


def test_dropout_and_batch_statistics_work_on_the_device() -> None:
    with other_device() as device:
        model = nn.Sequential(network(3), nn.Dropout(0.5)).to(device)
        mine = replace(moved(job("cross_entropy"), device), model=model)
        assert np.isfinite(fit(mine).history[0]["loss"])
