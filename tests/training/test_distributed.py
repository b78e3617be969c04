"""Two gloo processes train like one process on the same global batch."""

import json
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

from medrobust.core import processes
from medrobust.training import distributed
from medrobust.training.loop import Job, fit
from tests.training.conftest import AUGMENT, BACKBONE, Workspace, adv, make_job, network, settings, subset

#: Without BatchNorm and augmentation they differ only by float32 rounding, which training amplifies.
ROUNDING = 2e-3
#: With BatchNorm each process normalises by its half of the batch, and augmentation draws other numbers. The
#: validation balanced accuracy may differ by this much (one of 32 images is 0.03).
NOISE = 0.13
TWO = "--standalone --nproc-per-node=2"


def compare(folder: Path, root: Path, stages: tuple[str, ...], **changes: Any) -> list[pd.DataFrame]:
    """Histories of the last stage, trained by one process and by two processes."""
    histories = []
    for name, variables in (("one", {}), ("two", {"MEDROBUST_TORCHRUN": TWO})):
        space = Workspace(folder / name, root, **changes)
        best = {"lr": 3e-3, "optimiser": "Adam", "batch_size": 16, "scheduler": "CosineAnnealingLR"}
        (space.folder / "data" / "tune" / BACKBONE).mkdir(parents=True)
        (space.folder / "data" / "tune" / BACKBONE / "best.json").write_text(
            json.dumps({**best, **changes.get("best", {})})
        )
        space.run("settings")
        for stage in stages:
            space.run(stage, **variables)
        regime = "adv" if stages[-1] == "adv_train" else "clean"
        assert (space.folder / "data" / "checkpoints" / BACKBONE / regime / "model.safetensors").is_file()
        histories.append(pd.read_csv(space.folder / "plots" / "train" / f"{BACKBONE}-{regime}" / "history.csv"))
    return histories


@pytest.mark.slow
def test_two_processes_train_like_one_up_to_rounding(root: Path, tmp_path: Path) -> None:
    model = {"timm": "vit_tiny_patch16_224", "weights": "none", "image_size": 32}
    one, two = compare(
        tmp_path, root, ("train", "adv_train"), models={BACKBONE: model}, augment={"p": 0.0},
        train={"epochs": 2, "lr": 1e-4, "batch_size": 16, "class_weights": "none"}, adv={"steps": 2, "epochs": 2},
    )  # fmt: skip
    assert np.allclose(one["loss"], two["loss"], atol=ROUNDING)
    for column in ("val_balanced_accuracy", "val_robust_balanced_accuracy"):
        assert np.allclose(one[column], two[column], atol=1 / 32 + 1e-6), "more than one image differs"


@pytest.mark.slow
def test_two_processes_train_like_one_up_to_the_noise_of_batch_statistics(root: Path, tmp_path: Path) -> None:
    one, two = compare(tmp_path, root, ("train",), train={"epochs": 6, "lr": 3e-3, "batch_size": 16})
    assert abs(one["val_balanced_accuracy"].max() - two["val_balanced_accuracy"].max()) <= NOISE


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_without_torchrun_every_function_is_a_no_op() -> None:
    model = network()
    model(torch.rand(2, 1, 16, 16)).sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    distributed.average_gradients(gradients(model), 2)
    distributed.average_buffers(model)
    assert all(
        torch.equal(a, p.grad) for a, p in zip(before, model.parameters(), strict=True) if p.grad is not None
    )
    assert (processes.rank(), processes.world_size()) == (0, 1)
    assert distributed.sum_over_processes(torch.tensor([2.0])).tolist() == [2.0]
    assert processes.rows_of_rank(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert processes.gather("x") == ["x"]
    assert processes.from_rank_0(lambda: 3) == 3


@pytest.mark.parametrize(
    ("gpus", "variables", "backend"),
    [
        (0, {"LOCAL_WORLD_SIZE": "2"}, "gloo"),
        (2, {"LOCAL_WORLD_SIZE": "2"}, "cpu:gloo,cuda:nccl"),
        (2, {"LOCAL_WORLD_SIZE": "2", "MEDROBUST_DEVICE": "cuda"}, "cpu:gloo,cuda:nccl"),
        (1, {"LOCAL_WORLD_SIZE": "2"}, "gloo"),
        (2, {"LOCAL_WORLD_SIZE": "2", "MEDROBUST_DEVICE": "cpu"}, "gloo"),
    ],
)
def test_nccl_carries_tensors_only_if_each_process_has_a_gpu_and_never_objects(
    gpus: int, variables: dict[str, str], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL refuses two processes on one GPU. It sends objects through the current GPU, always the first one."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.delenv("MEDROBUST_DEVICE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "process_group", nullcontext)
    with distributed.training_process_group() as used:
        assert used == backend


def uneven_jobs() -> dict[str, Job]:
    """Trainings without BatchNorm and augmentation, of 20 and 7 images in batches of 10, 10 and 7."""
    data, no_augmentation = subset(40), AUGMENT.model_copy(update={"p": 0.0})
    data = data.take(np.flatnonzero((data.labels == 0) | (np.arange(40) % 6 == 1)))
    # SGD, because Adam's first step is a sign, which rounding can flip where a gradient is nearly 0.
    block = settings(optimiser="SGD", lr=0.01, epochs=2, batch_size=10, class_weights="balanced")
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "clean": ("cross_entropy", {}), "mart": ("mart", {"adv": adv()}),
        "ssat": ("ssat", {"adv": adv(), "unlabelled": subset(20)}), "awp": ("mixed", {"adv": adv(awp=0.05)}),
    }  # fmt: skip
    jobs = {}
    for name, (objective, parts) in cases.items():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)]
        parts |= {"model": nn.Sequential(*layers), "train": data, "val": data, "augment": no_augmentation}
        jobs[name] = make_job(objective, settings=block, **parts)
    return jobs


def _fit(rank: int, port: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    torch.set_num_threads(1)
    for name, job in uneven_jobs().items():
        losses = [row["loss"] for row in fit(job).history]
        torch.save((losses, list(job.model.parameters())), f"{folder}/{name}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_uneven_shares_train_like_the_whole_batch(tmp_path: Path) -> None:
    """Class weights, unlabelled images, perturbed weights and the reported loss are those of the whole batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_fit, (port, str(tmp_path)), nprocs=2)
    for name, job in uneven_jobs().items():
        expected = [row["loss"] for row in fit(job).history]
        for rank in range(2):
            losses, weights = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=False)
            assert losses == pytest.approx(expected, rel=1e-5), name
            for weight, parameter in zip(weights, job.model.parameters(), strict=True):
                assert torch.allclose(weight, parameter, atol=1e-5), name
