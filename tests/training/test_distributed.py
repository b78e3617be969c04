"""Two gloo processes train as one does on the same global batch."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

from medrobust import processes
from medrobust.training import distributed
from tests.training.conftest import BACKBONE, Workspace, network

#: Without BatchNorm and augmentation the two differ by float32 rounding alone, which training amplifies.
ROUNDING = 2e-3
#: With BatchNorm each process normalises by its half of the batch, and augmentation draws other numbers: the
#: validation balanced accuracy (32 images: one is 0.03) may differ by this.
NOISE = 0.13
TWO = "--standalone --nproc-per-node=2"


def compare(folder: Path, root: Path, stages: tuple[str, ...], **changes: Any) -> list[pd.DataFrame]:
    """Histories of the last stage, trained by one process and by two."""
    found = []
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
        found.append(pd.read_csv(space.folder / "plots" / "train" / f"{BACKBONE}-{regime}" / "history.csv"))
    return found


@pytest.mark.slow
def test_two_processes_train_as_one_to_rounding(root: Path, tmp_path: Path) -> None:
    model = {"timm": "vit_tiny_patch16_224", "weights": "none", "image_size": 32}
    one, two = compare(
        tmp_path, root, ("train", "adv_train"), models={BACKBONE: model}, augment={"p": 0.0},
        train={"epochs": 2, "lr": 1e-4, "batch_size": 16, "class_weights": "none"}, adv={"steps": 2, "epochs": 2},
    )  # fmt: skip
    assert np.allclose(one["loss"], two["loss"], atol=ROUNDING)
    for column in ("val_balanced_accuracy", "val_robust_balanced_accuracy"):
        assert np.allclose(one[column], two[column], atol=1 / 32 + 1e-6), "more than one image differs"


@pytest.mark.slow
def test_two_processes_train_as_one_within_the_noise_of_batch_statistics(root: Path, tmp_path: Path) -> None:
    one, two = compare(tmp_path, root, ("train",), train={"epochs": 6, "lr": 3e-3, "batch_size": 16})
    assert abs(one["val_balanced_accuracy"].max() - two["val_balanced_accuracy"].max()) <= NOISE


def test_without_torchrun_nothing_happens() -> None:
    model = network()
    model(torch.rand(2, 1, 16, 16)).sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    distributed.average_gradients(model, 2)
    distributed.average_buffers(model)
    assert all(
        torch.equal(a, p.grad) for a, p in zip(before, model.parameters(), strict=True) if p.grad is not None
    )
    assert (processes.rank(), processes.world(), distributed.mean(2.0)) == (0, 1, 2.0)
    assert processes.share(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert processes.gather("x") == ["x"]
    assert processes.from_first(lambda: 3) == 3


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
def test_nccl_carries_tensors_where_each_process_has_a_gpu_and_objects_never(
    gpus: int, variables: dict[str, str], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL refuses two processes on one GPU, and sends objects over the current GPU: everybody's first."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.delenv("MEDROBUST_DEVICE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "joined", nullcontext)
    with distributed.processes() as asked:
        assert asked == backend


def _average(rank: int, port: int, folder: str) -> None:
    """Two processes with batches of 3 and 1 images must get the gradient of the four."""
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    torch.manual_seed(0)
    model, images = nn.Linear(4, 1), torch.rand(4, 4)
    part = images[:3] if rank == 0 else images[3:]
    model(part).square().mean().backward()
    distributed.average_gradients(model, len(part))
    torch.save(model.weight.grad, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_gradients_are_weighted_by_the_share_of_images(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_average, (port, str(tmp_path)), nprocs=2)
    torch.manual_seed(0)
    model, images = nn.Linear(4, 1), torch.rand(4, 4)
    model(images).square().mean().backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(found, model.weight.grad)  # type: ignore[arg-type]
