"""A streaming batch gives the same results as single images, and continues after running out of memory."""

from collections import deque
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, QueryCounter, focus
from medrobust.attacks.batch_limit import BatchLimit
from medrobust.attacks.engine.streaming import Attempt, AttemptResult, FixedBatch, StreamingBatch
from medrobust.attacks.methods.apgd import APGD, APGDT
from medrobust.attacks.methods.iterative import BIM, CWPGD, FGSM, PGD, TIFGSM, VMIFGSM, Jitter
from medrobust.attacks.methods.square import Square
from medrobust.attacks.state import IterativeAttack
from medrobust.core.errors import UserError
from medrobust.data.store import Subset


def work(
    model: nn.Module, attack: IterativeAttack, subset: Subset, attempts: list[Attempt], size: int
) -> dict[int, AttemptResult]:
    """The results of attempts, by row."""

    def fetch(rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        return subset.batch(rows), subset.targets(rows), torch.tensor(rows) + 7

    batch, results = StreamingBatch(model, attack, fetch, BatchLimit(size), subset), {}
    batch.queue = deque(attempts)
    while batch.pending:
        for result in batch.step():
            results[result.attempt.row] = result
    return results


ATTACKS = [
    FGSM(eps=0.05),
    PGD(eps=0.05, steps=6),
    PGD(eps=0.05, steps=4, loss="margin"),
    Square(eps=0.05, queries=12),
    BIM(eps=0.05, steps=5, target="least_likely"),
    CWPGD(eps=0.05, steps=5, mask="foreground", eot=2),
    VMIFGSM(eps=0.05, steps=4, neighbours=2),
    TIFGSM(eps=0.05, steps=4, kernel=5),
    Jitter(eps=0.05, steps=4),
    APGD(eps=0.05, steps=10),
    Square(eps=0.05, queries=12, target="least_likely"),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_batch_agrees_with_the_attack_alone(
    attack: IterativeAttack, size: int, trained: nn.Module, subset: Subset
) -> None:
    attempts = [Attempt(row, 0.05, 0, None) for row in range(40)]
    results = work(trained, attack, subset, attempts, size)
    alone = attack(trained, subset.batch(range(40)), subset.targets(range(40)), seeds=torch.arange(40) + 7)
    for row, result in results.items():
        assert torch.allclose(result.image, alone[row], atol=1e-6)
        assert result.pred == int(trained(alone[row : row + 1]).argmax())


def test_each_start_of_a_streamed_image_leads_to_the_next_wrong_class(trained: nn.Module, subset: Subset) -> None:
    attack, rows = APGDT(eps=0.001, steps=4, targets=1), range(40)
    results = [
        work(trained, APGDT(eps=0.001, steps=4), subset, [Attempt(r, 0.001, start, None) for r in rows], 7)
        for start in (0, 1)
    ]
    alone = attack(trained, subset.batch(rows), subset.targets(rows), seeds=torch.arange(40) + 7)
    assert all(torch.allclose(results[0][row].image, alone[row], atol=1e-6) for row in rows)
    assert any(not torch.allclose(results[1][row].image, alone[row], atol=1e-6) for row in rows)


def test_an_image_whose_target_is_its_label_leaves_unchanged(trained: nn.Module, subset: Subset) -> None:
    results = work(
        trained, PGD(eps=0.05, target="healthy"), subset, [Attempt(row, 0.05, 0, None) for row in range(40)], 9
    )
    for row, result in results.items():
        healthy = subset.labels[row] == 0
        assert healthy == torch.equal(result.image, subset.batch([row])[0])
        assert (result.steps == 0) == healthy or result.margin > 0


def test_images_of_one_batch_have_their_own_radii(trained: nn.Module, subset: Subset) -> None:
    radii = [0.01 * (row % 5 + 1) for row in range(40)]
    attack = PGD(eps=0.05, steps=5, random_start=False)
    results = work(trained, attack, subset, [Attempt(row, radii[row], 0, None) for row in range(40)], 64)
    for row, result in results.items():
        own = PGD(eps=radii[row], steps=5, random_start=False)
        rows = range(row, row + 1)
        alone = own(trained, subset.batch(rows), subset.targets(rows), seeds=torch.tensor([row + 7]))
        assert torch.allclose(result.image, alone[0], atol=1e-6)


def test_every_evaluation_is_counted(trained: nn.Module, subset: Subset) -> None:
    seen = {"gradients": 0, "queries": 0}

    class Counted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen["gradients" if images.requires_grad else "queries"] += len(images)
            logits: Tensor = trained(images)
            return logits

    for attack in ATTACKS:
        seen["gradients"] = seen["queries"] = 0
        results = work(Counted(), attack, subset, [Attempt(row, 0.01, 0, None) for row in range(40)], 9)
        assert sum(result.gradients for result in results.values()) == seen["gradients"]
        assert sum(result.queries for result in results.values()) == seen["queries"]
        counter, rows = QueryCounter(trained, 40), range(40)
        alone = replace(attack, eps=0.01)
        alone(counter, subset.batch(rows), subset.targets(rows), seeds=torch.arange(40) + 7)
        assert counter.gradients.tolist() == [results[row].gradients for row in rows]
        assert counter.queries.tolist() == [results[row].queries for row in rows]


def test_a_counter_charges_the_images_that_an_attack_focuses_on(trained: nn.Module, subset: Subset) -> None:
    counter = QueryCounter(trained, 4)
    images = subset.batch(range(4))
    counter(images)
    part = focus(counter, torch.tensor([True, False, True, False]))
    part(images[[0, 2]])
    focus(part, torch.tensor([1]))(images[[2]].requires_grad_(True))
    assert counter.queries.tolist() == [2, 1, 2, 1]
    assert counter.gradients.tolist() == [0, 0, 1, 0]


def test_perturbations_are_measured(trained: nn.Module, subset: Subset) -> None:
    results = work(trained, FGSM(eps=0.02), subset, [Attempt(row, 0.02, 0, None) for row in range(40)], 64)
    for row, result in results.items():
        clean = subset.batch([row])[0]
        assert result.distance == pytest.approx(float((result.image - clean).abs().max()), abs=1e-7)
        free = (result.image > 0) & (result.image < 1)
        share = ((result.image - clean).abs()[free] >= 0.99 * 0.02).float().mean()
        assert result.saturation == pytest.approx(float(share), abs=1e-6)
        assert result.displacement == pytest.approx(result.distance, abs=1e-7)


class Small(nn.Module):
    """A model on a device whose memory holds only `capacity` images."""

    def __init__(self, model: nn.Module, capacity: int) -> None:
        super().__init__()
        self.model, self.capacity = model, capacity

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        logits: Tensor = self.model(images)
        return logits


def test_running_out_of_memory_halves_the_batch_with_a_message(
    trained: nn.Module, subset: Subset, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts = [Attempt(row, 0.05, 0, None) for row in range(40)]
    results = work(Small(trained, 10), PGD(eps=0.05, steps=6), subset, attempts, 40)
    assert "out of GPU memory with 40 images per batch: continuing with 20" in capsys.readouterr().out
    unlimited = work(trained, PGD(eps=0.05, steps=6), subset, attempts, 40)
    assert {row: result.margin > 0 for row, result in results.items()} == {
        row: result.margin > 0 for row, result in unlimited.items()
    }


class OneCall(Attack):
    """An attack that cannot be stepped."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        model(images)
        return (images + self.eps).clamp(0, 1)


def test_running_out_of_memory_halves_the_batch_of_any_attack(trained: nn.Module, subset: Subset) -> None:
    def fetch(rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        return subset.batch(rows), subset.targets(rows), torch.tensor(rows)

    batch = FixedBatch(Small(trained, 6), OneCall(eps=0.1), fetch, BatchLimit(40), subset)
    batch.queue = deque(Attempt(row, 0.05 if row % 2 else 0.1, 0, None) for row in range(40))
    results: list[AttemptResult] = []
    while batch.pending:
        results += batch.step()
    assert sorted(result.attempt.row for result in results) == list(range(40))
    for result in results:
        assert result.distance <= result.attempt.eps + 1e-6
        assert (result.gradients, result.queries) == (0, 2)


def test_a_memory_that_holds_no_image_is_named(trained: nn.Module, subset: Subset) -> None:
    attempts = [Attempt(0, 0.05, 0, None)]
    with pytest.raises(UserError, match=r"GPU memory: not even one image fits\. Use a smaller model"):
        work(Small(trained, 0), PGD(eps=0.05, steps=6), subset, attempts, 4)
