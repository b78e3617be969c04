"""A batch whose places are refilled gives what one image at a time gives, and survives a full memory."""

from collections import deque
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, Meter, focus
from medrobust.attacks.engine.streaming import Batch, Outcome, Pool, Room, Task
from medrobust.attacks.methods.pgd import FGSM, PGD
from medrobust.attacks.methods.square import Square
from medrobust.attacks.state import Stepwise
from medrobust.core.errors import UserError
from medrobust.data.store import Subset


def work(model: nn.Module, attack: Stepwise, subset: Subset, tasks: list[Task], size: int) -> dict[int, Outcome]:
    def fetch(rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        return subset.batch(rows), subset.targets(rows), torch.tensor(rows) + 7

    pool, found = Pool(model, attack, fetch, Room(size)), {}
    pool.queue = deque(tasks)
    while pool.load:
        for outcome in pool.step():
            found[outcome.task.row] = outcome
    return found


ATTACKS = [
    FGSM(eps=0.05),
    PGD(eps=0.05, steps=6),
    PGD(eps=0.05, steps=4, loss="margin"),
    Square(eps=0.05, queries=12),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_pool_agrees_with_the_attack_alone(
    attack: Stepwise, size: int, trained: nn.Module, subset: Subset
) -> None:
    tasks = [Task(row, 0.05, 0, attack.moves, None) for row in range(40)]
    found = work(trained, attack, subset, tasks, size)
    alone = attack(trained, subset.batch(range(40)), subset.targets(range(40)), seeds=torch.arange(40) + 7)
    for row, outcome in found.items():
        assert torch.allclose(outcome.found, alone[row], atol=1e-6)
        assert outcome.pred == int(trained(alone[row : row + 1]).argmax())


def test_images_of_one_batch_have_their_own_radii(trained: nn.Module, subset: Subset) -> None:
    radii = [0.01 * (row % 5 + 1) for row in range(40)]
    attack = PGD(eps=0.05, steps=5, random_start=False)
    found = work(trained, attack, subset, [Task(row, radii[row], 0, 5, None) for row in range(40)], 64)
    for row, outcome in found.items():
        own = PGD(eps=radii[row], steps=5, random_start=False)
        rows = range(row, row + 1)
        alone = own(trained, subset.batch(rows), subset.targets(rows), seeds=torch.tensor([row + 7]))
        assert torch.allclose(outcome.found, alone[0], atol=1e-6)


def test_every_evaluation_is_counted(trained: nn.Module, subset: Subset) -> None:
    seen = {"gradients": 0, "queries": 0}

    class Counted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen["gradients" if images.requires_grad else "queries"] += len(images)
            logits: Tensor = trained(images)
            return logits

    for attack in ATTACKS:
        seen["gradients"] = seen["queries"] = 0
        found = work(Counted(), attack, subset, [Task(row, 0.01, 0, attack.moves, None) for row in range(40)], 9)
        assert sum(outcome.gradients for outcome in found.values()) == seen["gradients"]
        assert sum(outcome.queries for outcome in found.values()) == seen["queries"]
        meter, rows = Meter(trained, 40), range(40)
        alone = replace(attack, eps=0.01)
        alone(meter, subset.batch(rows), subset.targets(rows), seeds=torch.arange(40) + 7)
        assert meter.gradients.tolist() == [found[row].gradients for row in rows]
        assert meter.queries.tolist() == [found[row].queries for row in rows]


def test_a_meter_charges_those_that_an_attack_focuses_on(trained: nn.Module, subset: Subset) -> None:
    meter = Meter(trained, 4)
    images = subset.batch(range(4))
    meter(images)
    part = focus(meter, torch.tensor([True, False, True, False]))
    part(images[[0, 2]])
    focus(part, torch.tensor([1]))(images[[2]].requires_grad_(True))
    assert meter.queries.tolist() == [2, 1, 2, 1]
    assert meter.gradients.tolist() == [0, 0, 1, 0]


def test_what_was_moved_is_measured(trained: nn.Module, subset: Subset) -> None:
    found = work(trained, FGSM(eps=0.02), subset, [Task(row, 0.02, 0, 1, None) for row in range(40)], 64)
    for row, outcome in found.items():
        clean = subset.batch([row])[0]
        assert outcome.distance == pytest.approx(float((outcome.found - clean).abs().max()), abs=1e-7)
        free = (outcome.found > 0) & (outcome.found < 1)
        share = ((outcome.found - clean).abs()[free] >= 0.99 * 0.02).float().mean()
        assert outcome.saturation == pytest.approx(float(share), abs=1e-6)
        assert outcome.displacement == pytest.approx(outcome.distance, abs=1e-7)


class Small(nn.Module):
    """A model on a device whose memory holds so many images."""

    def __init__(self, model: nn.Module, room: int) -> None:
        super().__init__()
        self.model, self.room = model, room

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        logits: Tensor = self.model(images)
        return logits


def test_a_full_memory_halves_the_batch_and_says_so(
    trained: nn.Module, subset: Subset, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [Task(row, 0.05, 0, 6, None) for row in range(40)]
    found = work(Small(trained, 10), PGD(eps=0.05, steps=6), subset, tasks, 40)
    assert "out of GPU memory with 40 images at once: going on with 20" in capsys.readouterr().out
    roomy = work(trained, PGD(eps=0.05, steps=6), subset, tasks, 40)
    assert {row: outcome.margin > 0 for row, outcome in found.items()} == {
        row: outcome.margin > 0 for row, outcome in roomy.items()
    }


class Whole(Attack):
    """An attack that runs to its end by itself."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        model(images)
        return (images + self.eps).clamp(0, 1)


def test_a_full_memory_halves_the_batch_of_any_attack(trained: nn.Module, subset: Subset) -> None:
    def fetch(rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        return subset.batch(rows), subset.targets(rows), torch.tensor(rows)

    batch = Batch(Small(trained, 6), Whole(eps=0.1), fetch, Room(40))
    batch.queue = deque(Task(row, 0.05 if row % 2 else 0.1, 0, 0, None) for row in range(40))
    found: list[Outcome] = []
    while batch.load:
        found += batch.step()
    assert sorted(outcome.task.row for outcome in found) == list(range(40))
    for outcome in found:
        assert outcome.distance <= outcome.task.eps + 1e-6
        assert (outcome.gradients, outcome.queries) == (0, 2)


def test_a_memory_without_room_for_one_image_is_named(trained: nn.Module, subset: Subset) -> None:
    tasks = [Task(0, 0.05, 0, 6, None)]
    with pytest.raises(UserError, match=r"GPU memory: not even one image fits\. Take a smaller model"):
        work(Small(trained, 0), PGD(eps=0.05, steps=6), subset, tasks, 4)
