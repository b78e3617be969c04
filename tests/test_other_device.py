"""The device that is none refuses and allows what CUDA does, and computes what the CPU computes."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.other_device import other_device


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: there @ here.T,
        lambda there, here: here.copy_(there).add_(there),
        lambda there, here: here[there[0].long()],
        lambda there, here: there.index_put_((torch.tensor([0]),), here[:1]),
        lambda there, here: here.index_put_((torch.tensor([0]),), there[:1]),
        lambda there, here: F.linear(here, there),
        lambda there, here: torch.where(there > 0, there, here),
        lambda there, here: here[0, 0].add_(there[0, 0]),
        lambda there, here: torch.stack([here[0, 0], there[0, 0]]),
        lambda there, here: torch.rand(3, device=there.device, generator=torch.Generator()),
        lambda there, here: there.normal_(generator=torch.Generator()),
    ],
)
def test_tensors_of_two_devices_do_not_mix(mixed: Callable[[Tensor, Tensor], Tensor]) -> None:
    with other_device() as device, pytest.raises(RuntimeError, match="same device"):
        mixed(torch.ones(3, 3, device=device), torch.ones(3, 3))


@pytest.mark.parametrize("read", [Tensor.numpy, np.asarray])
def test_numpy_reads_no_memory_of_a_device(read: Callable[[Tensor], object]) -> None:
    with other_device() as device, pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        read(torch.ones(3, device=device))


def test_numbers_indices_and_copies_cross_over() -> None:
    with other_device() as device:
        there = torch.arange(6.0, device=device).view(2, 3)
        assert (there * torch.tensor(2.0))[torch.tensor([1])].tolist() == [[6.0, 8.0, 10.0]]
        assert torch.tensor([1, 2]).to(there).device == there.new_zeros(2).device == device
        assert there.cpu().numpy().sum() == there.sum().item() == 15
        assert torch.zeros(2, 3).copy_(there).device == torch.device("cpu")
        assert there.to(torch.float64).device == device
        there[0] = torch.tensor(7.0)
        assert float(there.max()) == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_training_gives_the_numbers_of_the_cpu(dtype: torch.dtype) -> None:
    images, labels = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3

    def train(model: nn.Module, images: Tensor, labels: Tensor, device: str) -> dict[str, Tensor]:
        optimiser = torch.optim.Adam(model.parameters(), fused=True)
        for _ in range(3):
            optimiser.zero_grad()
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimiser.step()
        return {name: value.cpu() for name, value in model.state_dict().items()}

    here = network()
    expected = train(copy.deepcopy(here), images, labels, "cpu")
    with other_device() as device:
        found = train(here.to(device), images.to(device), labels.to(device), "cuda")
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_nothing_is_left_of_it() -> None:
    before = torch.cuda.is_available(), torch.autocast
    with other_device():
        assert torch.cuda.is_available()
    assert (torch.cuda.is_available(), torch.autocast) == before
    assert torch.ones(2).device == torch.device("cpu")
    assert type(torch.ones(2)) is Tensor
