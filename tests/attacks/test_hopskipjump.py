"""HopSkipJump finds nearly the smallest change of a linear model, and sees only predictions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medrobust.attacks.base import QueryCounter
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.methods.hopskipjump import HopSkipJump
from medrobust.attacks.projection import distance
from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.data.store import Subset
from tests.attacks.conftest import AttackedModel
from tests.attacks.test_minimal import FAR, lengths
from tests.attacks.test_rays import OneHot, linear

Make = Callable[..., AttackedModel]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_radius_of_a_linear_model_is_found(norm: Any) -> None:
    """The boundary is 1 / |weight| away in the dual norm."""
    model, images, exact = linear(norm)
    labels, seeds = torch.zeros(2, dtype=torch.int64), torch.arange(2)
    found = HopSkipJump(eps=9.0, norm=norm, queries=1000)(model, images, labels, seeds=seeds)
    assert (model(found).argmax(1) == 1).all()
    away = distance(found, images, norm)
    assert (away >= exact * (1 - 1e-4)).all()
    assert (away <= exact * 1.1).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_not_used(classes: int, norm: Any, attacked_model: Make) -> None:
    model = attacked_model(classes)
    attack = HopSkipJump(eps=FAR[norm], norm=norm, queries=200, probes=20)
    one, two = (
        attack(network, model.images, model.labels, seeds=model.seeds) for network in (model, OneHot(model).eval())
    )
    assert torch.equal(one, two)
    assert (model(one).argmax(1) != model.labels).all()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_distances_are_smaller_than_those_of_foolbox_at_as_many_queries(
    norm: Any, attacked_model: Make
) -> None:
    foolbox = pytest.importorskip("foolbox")
    model = attacked_model(4)
    counter = QueryCounter(model, len(model.images)).eval()
    state = np.random.get_state()
    np.random.seed(0)
    theirs = foolbox.attacks.HopSkipJumpAttack(steps=2, constraint=norm.lower(), tensorboard=False)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        _, found, _ = theirs(
            foolbox.PyTorchModel(counter, bounds=(0, 1)), model.images, model.labels, epsilons=None
        )
    np.random.set_state(state)
    away = distance(found, model.images, norm).numpy()
    queries = int(counter.queries.max())
    ours = lengths(HopSkipJump(eps=FAR[norm], norm=norm, queries=queries), model, norm)
    assert np.isfinite(ours).all()
    assert np.mean(ours) < np.mean(away)


@pytest.mark.parametrize("queries", [1, 5, 20, 60])
def test_no_image_gets_more_queries_than_allowed(queries: int, attacked_model: Make) -> None:
    model = attacked_model(3)
    counter = QueryCounter(model, len(model.images))
    attack = HopSkipJump(eps=1.0, queries=queries, probes=15)
    found = attack(counter, model.images, model.labels, seeds=model.seeds)
    assert counter.queries.max() <= queries
    assert counter.queries.min() >= 1
    assert counter.gradients.max() == 0
    moved = (found != model.images).flatten(1).any(1)
    assert torch.equal(model(found).argmax(1) != model.labels, moved)
    assert moved.all() or queries < 20
    assert moved.any() or queries == 1


def test_more_queries_lead_nearer(attacked_model: Make) -> None:
    model = attacked_model(2)
    means = [lengths(HopSkipJump(eps=1.0, queries=count), model, "Linf").mean() for count in (60, 150, 400)]
    assert means[0] > means[1] > means[2]


def test_an_image_that_is_wrong_stays_and_costs_one_query(attacked_model: Make) -> None:
    model = attacked_model(2)
    wrong = model.labels.clone()
    wrong[:3] = 1 - wrong[:3]
    counter = QueryCounter(model, len(wrong))
    found = HopSkipJump(eps=1.0, queries=100, probes=10)(counter, model.images, wrong, seeds=model.seeds)
    assert torch.equal(found[:3], model.images[:3])
    assert counter.queries[:3].tolist() == [1, 1, 1]
    assert (found[3:] != model.images[3:]).flatten(1).any(1).all()


def test_without_a_start_the_image_stays_clean() -> None:
    """The model gives one class to every image."""
    layer = nn.Linear(9, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 0.0]))
    model = nn.Sequential(nn.Flatten(), layer)
    grey, label = torch.full((1, 1, 3, 3), 0.5), torch.tensor([0])
    counter = QueryCounter(model.eval(), 1)
    found = HopSkipJump(eps=1.0, tries=7)(counter, grey, label, seeds=label)
    assert torch.equal(found, grey)
    assert counter.queries.item() == 8


def test_noise_of_every_block_size_is_tried() -> None:
    """A model of the mean grey value: noise of single pixels is never bright enough, a large block is."""
    layer = nn.Linear(1024, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(1024), torch.full((1024,), 1 / 1024)]))
        layer.bias.copy_(torch.tensor([0.6, 0.0]))
    dark, label = torch.full((4, 1, 32, 32), 0.4), torch.zeros(4, dtype=torch.int64)
    model = nn.Sequential(nn.Flatten(), layer).eval()
    found = HopSkipJump(eps=1.0, queries=100)(model, dark, label, seeds=torch.arange(4))
    assert (found.flatten(1).mean(1) > 0.6 - 1e-4).all()


def test_a_target_is_reached_from_a_training_image(subset: Subset, trained: nn.Module) -> None:
    images, labels = subset.batch(range(16)), subset.targets(range(16))
    keen = HopSkipJump(eps=50.0, norm="L2", begin="image", target=2, queries=400)
    found = keen.with_training(subset)(trained, images, labels, seeds=torch.arange(16))
    assert (trained(found).argmax(1) == 2).all()
    start = distance(subset.batch(range(28, 40)).mean(0)[None], images, "L2")
    assert (distance(found, images, "L2") < start).all()


def test_one_run_decides_every_radius(subset: Subset, trained: nn.Module) -> None:
    radii = [0.05, 0.15, 0.3]
    spec = {"name": "hopskipjump", "queries": 300}
    suite = resolve_suite("s", SuiteParams(norm="Linf", eps=radii, attacks=[spec]))
    attempts = attack_suite(trained, subset, suite, seed=0)
    tried = attempts[attempts["attack"] == "hopskipjump"]
    assert tried["id"].is_unique
    assert tried["gradients"].max() == 0
    assert 250 < tried["queries"].min() <= tried["queries"].max() <= 300 + 1  # and one that verifies the result
    eager = resolve_suite("s", SuiteParams(norm="Linf", eps=[0.3], attacks=[{**spec, "minimise": False}]))
    fewer = attack_suite(trained, subset, eager, seed=0).query("attack == 'hopskipjump'")
    assert fewer["fooled"].equals(tried["fooled"].reset_index(drop=True).set_axis(fewer.index))
    assert fewer["queries"].sum() < tried["queries"].sum()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"begin": "image"}, "no training images.*with_training"),
        ({"begin": "target"}, "begin: got 'target'"),
        ({"reach": 0.0}, "reach: got 0.0"),
        ({"queries": 0}, "queries: got 0"),
        ({"probes": 9}, "probes: got 9"),
    ],
)
def test_an_invalid_setting_is_refused(settings: dict[str, Any], message: str, attacked_model: Make) -> None:
    model = attacked_model(3)
    with pytest.raises(UserError, match=message):
        HopSkipJump(eps=0.1, **settings)(model, model.images, model.labels, seeds=model.seeds)
