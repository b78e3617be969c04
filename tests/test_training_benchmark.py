"""The training benchmark runs on a CPU and on a stand-in for a GPU, and its numbers are plausible."""

import re
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from benchmarks import training
from tests.other_device import other_device

MODEL, SIZE, HALF = "test_resnet.r160_in1k", 32, 4


@pytest.fixture(autouse=True)
def _small_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PRODUCT", {"cpu": (256, 2), "cuda": (256, 2)})
    monkeypatch.setattr(training, "STEPS", 1)
    monkeypatch.delenv("MEDROBUST_DEVICE", raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("on_device", [False, True])
def test_a_comparison_prints_its_results(on_device: bool, capsys: pytest.CaptureFixture[str]) -> None:
    context: Any = other_device() if on_device else nullcontext()
    with context:
        training.compare(MODEL, SIZE, 3.0, HALF, 1)
    output = capsys.readouterr().out
    assert len(re.findall(r"images/s", output)) == 4, "two number formats in two memory formats"
    assert re.search(r"speed-up over the plain loop: \d+\.\d\dx \(target: 3\.0\), \d+% of the peak", output)
    assert len(re.findall(r"loading and augmentation: \d+\.\d% of a step", output)) == 2


def test_both_loops_use_the_same_batch() -> None:
    ours = training.OurLoop(MODEL, SIZE, "mixed", HALF, training.Format())
    plain = training.PlainLoop(MODEL, SIZE, HALF)
    batches = []
    for task in (ours, plain.loader):
        torch.manual_seed(0)
        batches.append(task.load())
    assert torch.equal(batches[0].images, batches[1].images)
    assert torch.equal(batches[0].labels, batches[1].labels)


def test_a_batch_can_be_larger_than_the_default_subset() -> None:
    assert len(training.OurLoop(MODEL, SIZE, "pgd_at", 600, training.Format()).load().images) == 600


def test_the_first_round_is_not_counted() -> None:
    calls: list[str] = []
    times = training.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert [len(seconds) for seconds in times.values()] == [3, 3]


def test_a_matrix_product_counts_its_operations() -> None:
    product = training.MatrixProduct("bf16")
    assert product.left.dtype == torch.bfloat16
    assert product.flops == 2 * 2 * 256**3
    product.step()
    assert torch.equal(product.out, product.left @ product.right)
