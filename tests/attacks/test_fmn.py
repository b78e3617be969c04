"""FMN finds the smallest change: exactly for a linear model, and as near as foolbox on a trained one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medrobust.attacks.base import QueryCounter
from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.methods.fmn import FMN
from medrobust.attacks.projection import distance
from medrobust.core.params.attacks import SuiteParams
from medrobust.data.store import Subset
from tests.attacks.conftest import AttackedModel
from tests.attacks.test_minimal import FAR, lengths

Make = Callable[..., AttackedModel]


@pytest.mark.parametrize(("norm", "dual"), [("L2", 2), ("Linf", 1)])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_distance_to_a_linear_boundary_is_found(norm: Any, dual: int, classes: int) -> None:
    """For two classes it is |f| / |w| in the dual norm, f and w being differences of logits and of weights."""
    layer = nn.Linear(36, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, 36, generator=torch.Generator().manual_seed(2)))
        layer.bias.copy_(1.5 * torch.eye(classes)[0] - layer.weight @ torch.full((36,), 0.5))
    model = nn.Sequential(nn.Flatten(), layer).eval()
    grey, label = torch.full((1, 1, 6, 6), 0.5), torch.tensor([0])
    slopes = layer.weight[1:] - layer.weight[0]
    exact = (1.5 / torch.linalg.vector_norm(slopes, dual, dim=1)).min().item()
    found = FMN(eps=9.0, norm=norm)(model, grey, label, seeds=label)
    assert model(found).argmax(1).item() != 0
    assert exact * (1 - 1e-4) <= distance(found, grey, norm).item() <= exact * 1.005


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_distances_are_no_larger_than_those_of_foolbox(classes: int, norm: Any, attacked_model: Make) -> None:
    """In Linf they agree. In L2, foolbox's iterates often stay just short of the boundary."""
    foolbox = pytest.importorskip("foolbox")
    model = attacked_model(classes)
    ours = lengths(FMN(eps=FAR[norm], norm=norm, steps=40), model, norm)
    kind = foolbox.attacks.LInfFMNAttack if norm == "Linf" else foolbox.attacks.L2FMNAttack
    _, theirs, _ = kind(steps=40)(
        foolbox.PyTorchModel(model, bounds=(0, 1)), model.images, model.labels, epsilons=None
    )
    away = distance(theirs, model.images, norm).detach().numpy()
    assert np.isfinite(ours).all()
    assert np.mean(ours) <= np.mean(away) * 1.001
    assert norm == "L2" or (ours <= away * 1.02).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_one_run_decides_every_radius(norm: Any, subset: Subset, trained: nn.Module) -> None:
    """The curve is the share of images whose smallest change exceeds each radius; each is attacked once."""
    radii = [0.02, 0.05, 0.2] if norm == "Linf" else [0.2, 0.5, 2.0]
    suite = resolve_suite("s", SuiteParams(norm=norm, eps=radii, attacks=[{"name": "fmn", "steps": 30}]))
    attempts = attack_suite(trained, subset, suite, seed=0)
    tried = attempts[attempts["attack"] == "fmn"]
    assert tried["id"].is_unique
    assert (tried["gradients"] == 30).all()
    table = worst_case(attempts, radii)
    one = [
        attack_suite(trained, subset, {**suite, "eps": [radius]}, seed=0).query("attack != 'stored'")
        for radius in radii
    ]
    for radius, alone in zip(radii, one, strict=True):
        fooled = alone.groupby("id")["fooled"].any().loc[subset.ids]
        assert (table[table["eps"] == radius]["fooled"].to_numpy() == fooled.to_numpy()).all()
    share = table.groupby("eps")["fooled"].mean()
    assert share.iloc[0] < share.iloc[-1]


def test_an_image_that_is_wrong_stays_and_costs_one_gradient(attacked_model: Make) -> None:
    model = attacked_model(2)
    wrong = model.labels.clone()
    wrong[:3] = 1 - wrong[:3]
    counter = QueryCounter(model, len(wrong))
    found = FMN(eps=1.0, steps=20)(counter, model.images, wrong, seeds=model.seeds)
    assert torch.equal(found[:3], model.images[:3])
    assert counter.gradients.tolist() == [1] * 3 + [20] * 29
    assert counter.queries.tolist() == [0] * 3 + [1] * 29


def test_without_a_gradient_nothing_breaks(attacked_model: Make) -> None:
    """Hard votes have no slope: the images stay clean."""
    model = attacked_model(3)

    class Votes(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(model(images).argmax(1), 3).float()

    found = FMN(eps=1.0, steps=5)(Votes().eval(), model.images, model.labels, seeds=model.seeds)
    assert torch.equal(found, model.images)
