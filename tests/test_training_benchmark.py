"""The benchmark of training runs on a CPU and, as far as that can be shown, on a GPU; its numbers make sense."""

import re
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from benchmarks import training
from tests.other_device import other_device

MODEL, SIZE, HALF = "test_resnet.r160_in1k", 32, 4


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PRODUCT", {"cpu": (256, 2), "cuda": (256, 2)})
    monkeypatch.setattr(training, "STEPS", 1)
    monkeypatch.delenv("MEDROBUST_DEVICE", raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True])
def test_a_comparison_prints_what_was_asked_for(there: bool, capsys: pytest.CaptureFixture[str]) -> None:
    context: Any = other_device() if there else nullcontext()
    with context:
        training.compare(MODEL, SIZE, 3.0, HALF, 1)
    said = capsys.readouterr().out
    assert len(re.findall(r"images/s", said)) == 4, "two number formats in two memory formats"
    assert re.search(r"against the plain way: \d+\.\d\dx \(wanted: 3\.0\), \d+% of the peak", said)
    assert len(re.findall(r"loading and augmentation: \d+\.\d% of a step", said)) == 2


def test_the_plain_way_and_ours_take_the_same_batch() -> None:
    ours = training.Ours(MODEL, SIZE, "mixed", HALF, training.Format())
    plain = training.Plain(MODEL, SIZE, HALF)
    batches = []
    for task in (ours, plain.loader):
        torch.manual_seed(0)
        batches.append(task.load())
    assert torch.equal(batches[0].images, batches[1].images)
    assert torch.equal(batches[0].labels, batches[1].labels)


def test_a_batch_may_be_larger_than_the_usual_subset() -> None:
    assert len(training.Ours(MODEL, SIZE, "pgd_at", 600, training.Format()).load().images) == 600


def test_seconds_are_those_of_each_round_but_the_first() -> None:
    calls: list[str] = []
    times = training.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert [len(found) for found in times.values()] == [3, 3]


def test_a_product_counts_its_operations() -> None:
    product = training.Product("bf16")
    assert product.left.dtype == torch.bfloat16
    assert product.flops == 2 * 2 * 256**3
    product.step()
    assert torch.equal(product.out, product.left @ product.right)
