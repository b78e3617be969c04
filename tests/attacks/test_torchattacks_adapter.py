"""The torchattacks adapter, and the faults of the library that it handles, each shown on the library itself."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.base import QueryCounter, margin
from medrobust.attacks.engine.evaluate import attack_suite, evaluate_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.methods.torchattacks_adapter import COLOUR_ONLY, NORMS, Torchattacks, defaults
from medrobust.attacks.projection import Norm, distance
from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.data.store import Subset
from tests.attacks.conftest import AttackedModel

Make = Callable[..., AttackedModel]
SEEDS = torch.arange(4)
#: Settings that keep the slower attacks quick.
QUICK: dict[str, dict[str, Any]] = {
    "EADEN": {"binary_search_steps": 2, "max_iterations": 10}, "JSMA": {"gamma": 0.02},
    "EADL1": {"binary_search_steps": 2, "max_iterations": 10}, "OnePixel": {"popsize": 4, "steps": 2},
    "Pixle": {"restarts": 2, "max_iterations": 2, "x_dimensions": [2, 4], "y_dimensions": [2, 4]},
    "SPSA": {"nb_sample": 8, "lr": 0.1}, "Square": {"n_queries": 10}, "CW": {"steps": 10}, "FAB": {"steps": 3},
}  # fmt: skip
#: Every attack in every norm that it supports. AutoAttack has no setting that makes it quick.
CASES = [(name, norm) for name, norms in NORMS.items() for norm in norms if name != "AutoAttack"]


def attack_of(name: str, norm: Norm = "Linf", eps: float = 0.1, **settings: Any) -> Torchattacks:
    return Torchattacks(eps=eps, norm=norm, attack=name, **{**QUICK.get(name, {}), **settings})


@pytest.fixture
def square_images(images: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """(n, channels) -> images as they are stored: square, here 16×16."""
    return lambda n, channels=1: images(n, channels, 16, 16)


@pytest.mark.parametrize(("name", "norm"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_class_keeps_the_contract(
    name: str, norm: Norm, channels: int, build: Any, square_images: Callable[..., Tensor]
) -> None:
    model, clean, labels = build(channels, 4), square_images(3, channels), torch.arange(3)
    model[1].eval()  # a frozen BatchNorm in a model that trains
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # type: ignore[index]
    attack = attack_of(name, norm)
    adv = attack(model, clean, labels, seeds=SEEDS[:3])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert random.getstate() == states[2]
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert distance(adv, clean, norm).max() <= 0.1 * (1 + 1e-5) + 1e-7
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert (adv.shape, adv.dtype) == (clean.shape, clean.dtype)
    alone = torch.cat([attack(model, clean[i, None], labels[i, None], seeds=SEEDS[i, None]) for i in range(3)])
    assert torch.equal(adv, alone), "a result depends on the image and its seed alone"


def test_the_table_lists_every_attack_of_the_library() -> None:
    import torchattacks

    assert set(torchattacks.__all__) - set(NORMS) == {"VANILA", "MultiAttack", "LGV"}
    assert set(NORMS) <= set(torchattacks.__all__)


@pytest.mark.parametrize(
    ("name", "norm"), [("VNIFGSM", "Linf"), ("NIFGSM", "Linf"), ("PGDL2", "L2"), ("FAB", "L2")]
)
def test_a_suite_runs_it_by_name(name: str, norm: Norm, trained: nn.Module, subset: Subset) -> None:
    """The results are the same in batches of another size."""
    eps = [0.05, 0.2] if norm == "Linf" else [0.5, 2.0]
    spec = {"name": "torchattacks", "attack": name, "steps": 5}
    suite = resolve_suite("s", SuiteParams(norm=norm, eps=eps, attacks=[spec]))
    assert suite["attacks"][0]["hyperparameters"] == {"attack": name, "steps": 5}
    table = evaluate_suite(trained, subset, suite, seed=0)
    assert "torchattacks" in set(table["fooled_by"])
    assert (table["fooled"] == evaluate_suite(trained, subset, suite, seed=0, batch_size=7)["fooled"]).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, r"attack: torchattacks has no attack ''.*Known: APGD, .*VNIFGSM"),
        ({"attack": "LGV"}, r"attack: torchattacks has no attack 'LGV'"),
        ({"attack": "PGDL2"}, r"attack: PGDL2 supports L2, but the suite has Linf\. Use one for Linf: APGD"),
        (
            {"attack": "PGD", "stepps": 3},
            r"stepps: unknown hyper-parameter\. Known: attack, allow_weak, alpha, steps",
        ),
        ({"attack": "PGD", "model": 3}, r"model: unknown hyper-parameter"),
        ({"attack": "PGD", "steps": "many"}, r"steps: got 'many'\. Use a value like the default 10"),
        ({"attack": "PGD", "steps": 2.5}, r"steps: got 2\.5"),
        ({"attack": "PGD", "steps": True}, r"steps: got True"),
        ({"attack": "PGD", "random_start": 1}, r"random_start: got 1"),
        ({"attack": "PGD", "alpha": 1e-4}, r"alpha 0\.0001 x 10 steps reaches 0\.001 of eps 0\.1"),
    ],
)
def test_a_wrong_entry_is_refused_when_the_suite_is_resolved(spec: dict[str, Any], message: str) -> None:
    attacks = [{"name": "torchattacks", **spec}]
    where = r"^params\.yaml: attacks\.suites\.s\.attacks\[0\]\.torchattacks[.: ]+"
    with pytest.raises(UserError, match=where + message):
        resolve_suite("s", SuiteParams(norm="Linf", eps=[0.1], attacks=attacks))


def test_keywords_that_the_adapter_sets_are_refused() -> None:
    assert {"seed", "n_classes"} <= set(defaults("APGDT"))
    with pytest.raises(UserError, match="seed: unknown hyper-parameter"):
        attack_of("APGDT", seed=1)


def test_steps_reach_every_radius(attacked_model: Make) -> None:
    """The library's default of 2/255 for alpha does not reach the border of a large ball in ten steps."""
    import torchattacks

    model = attacked_model(4)
    images, labels = model.images[:4], model.labels[:4]
    plain = torchattacks.BIM(model, eps=0.5)(images, labels)
    ours = attack_of("BIM", eps=0.5)(model, images, labels, seeds=SEEDS)
    assert distance(plain, images).max() < 0.1
    assert distance(ours, images).min() > 0.45


def test_a_failure_of_the_library_is_a_user_error(attacked_model: Make) -> None:
    """APGDT takes no fewer than four classes, and Square in L2 fails on images of 12×10."""
    model = attacked_model(3)
    with pytest.raises(UserError, match=r"APGDT of torchattacks fails on images of 1 x 12 x 10: IndexError"):
        attack_of("APGDT")(model, model.images[:1], model.labels[:1], seeds=SEEDS[:1])
    with pytest.raises(UserError, match=r"Square of torchattacks fails on images of 1 x 12 x 10"):
        attack_of("Square", "L2")(model, model.images[:1], model.labels[:1], seeds=SEEDS[:1])


@pytest.mark.parametrize("name", COLOUR_ONLY)
def test_grey_images_are_attacked_as_colour_ones(
    name: str, build: Any, square_images: Callable[..., Tensor]
) -> None:
    import torchattacks

    model, clean, labels = build(1, 4).eval(), square_images(3), torch.arange(3)
    radius = "eps" if name == "TIFGSM" else "max_epsilon"
    with pytest.raises(RuntimeError, match=r"channels|groups"), torch.random.fork_rng():
        getattr(torchattacks, name)(model, **{radius: 0.1})(clean, labels)
    adv = attack_of(name)(model, clean, labels, seeds=SEEDS[:3])
    assert (model(adv).gather(1, labels[:, None]) < model(clean).gather(1, labels[:, None])).all()


def test_an_image_without_a_gradient_stays_clean(images: Callable[..., Tensor]) -> None:
    """In the library, DeepFool divides 0 by 0 there."""
    import torchattacks

    class Flat(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self[1](self[0](images.clamp(0.4, 0.4)))
            return logits

    model, clean = Flat(nn.Flatten(), nn.Linear(120, 3)), images(2)
    labels = model(clean).argmax(1)
    assert not torch.isfinite(torchattacks.DeepFool(model)(clean, labels)).any()
    assert torch.equal(attack_of("DeepFool")(model, clean, labels, seeds=SEEDS[:2]), clean)


def test_jsma_works_for_any_number_of_classes(attacked_model: Make) -> None:
    """In the library, the target is the next of ten classes."""
    import torchattacks

    model = attacked_model(4)
    rows = torch.nonzero(model.labels == 3).squeeze(1)[:1]
    with pytest.raises(IndexError):
        torchattacks.JSMA(model)(model.images[rows], model.labels[rows])
    images, labels = model.images[rows], model.labels[rows]
    adv = attack_of("JSMA", eps=1.0, theta=-1.0)(model, images, labels, seeds=SEEDS[:1])
    assert margin(model(adv), labels) > margin(model(images), labels)


def test_an_attack_without_a_radius_runs_once_per_image(trained: nn.Module, subset: Subset) -> None:
    for name, rounds in (("CW", 1), ("FGSM", 3)):
        spec = {"name": "torchattacks", "attack": name, **({"steps": 5} if name == "CW" else {})}
        suite = resolve_suite("s", SuiteParams(norm="Linf", eps=[1e-4, 2e-4, 3e-4], attacks=[spec]))
        table = attack_suite(trained, subset, suite, seed=0)
        tries = table[table["attack"] == "torchattacks"].groupby("id").size()
        assert (tries == rounds).all()


def test_the_radius_can_be_replaced() -> None:
    attack = replace(attack_of("PGD", steps=20), eps=0.3)
    assert (attack.eps, attack.attack, attack.steps) == (0.3, "PGD", 20)
    assert (attack_of("CW").steps, attack_of("FGSM").steps) == (10, 0)


def test_the_global_random_state_is_left_alone(attacked_model: Make) -> None:
    import torchattacks

    model = attacked_model(4)
    state = torch.get_rng_state()
    with torch.random.fork_rng():
        torchattacks.Square(model, n_queries=3)(model.images, model.labels)
        assert not torch.equal(torch.get_rng_state(), state), "the library reseeds it"
    attack_of("Square", n_queries=3)(model, model.images, model.labels, seeds=model.seeds)
    assert torch.equal(torch.get_rng_state(), state)


def test_cw_does_not_depend_on_the_other_images_of_a_batch(attacked_model: Make) -> None:
    """In the library, CW stops when the sum of the batch's losses stops falling."""
    import torchattacks

    model = attacked_model(4)
    images, labels = model.images[:6], model.labels[:6]
    settings: dict[str, Any] = {"c": 1.0, "steps": 30, "lr": 0.5}
    plain = torchattacks.CW(model, **settings)
    together, alone = plain(images, labels), torch.cat([plain(images[i, None], labels[i, None]) for i in range(6)])
    assert not torch.allclose(together, alone, atol=1e-4)
    ours = attack_of("CW", eps=1.0, **settings)
    together = ours(model, images, labels, seeds=torch.arange(6))
    alone = torch.cat([ours(model, images[i, None], labels[i, None], seeds=SEEDS[:1]) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)
    for parameter in model.parameters():
        parameter.grad = None


def test_square_does_not_depend_on_the_other_images_of_a_batch(attacked_model: Make) -> None:
    import torchattacks

    model = attacked_model(4)
    images, labels = model.images[:4], model.labels[:4]
    with torch.random.fork_rng():
        plain = torchattacks.Square(model, eps=0.2, n_queries=30)
        together = plain(images, labels)
        alone = torch.cat([plain(images[i, None], labels[i, None]) for i in range(4)])
    assert not torch.allclose(together, alone, atol=1e-4)
    ours = attack_of("Square", eps=0.2, n_queries=30)
    together = ours(model, images, labels, seeds=SEEDS)
    alone = torch.cat([ours(model, images[i, None], labels[i, None], seeds=SEEDS[i, None]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_no_gradient_stays_on_the_parameters(attacked_model: Make) -> None:
    import torchattacks

    model = attacked_model(4)
    torchattacks.CW(model, steps=3)(model.images, model.labels)
    assert all(parameter.grad is not None for parameter in model.parameters()), "training would add to these"
    for parameter in model.parameters():
        parameter.grad = None
    attack_of("CW", eps=1.0, steps=3)(model, model.images, model.labels, seeds=model.seeds)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_frozen_norm_layer_stays_frozen(build: Any, images: Any) -> None:
    """The library puts all modules back into train mode."""
    import torchattacks

    for frozen in (True, False):
        model = build(1, 3)
        model[1].eval()
        if frozen:
            attack_of("Square", n_queries=3)(model, images(2), torch.tensor([0, 1]), seeds=SEEDS[:2])
        else:
            with torch.random.fork_rng():
                torchattacks.Square(model, n_queries=3)(images(2), torch.tensor([0, 1]))
        assert model.training
        assert model[1].training is not frozen


def test_cw_can_move_pixels_at_the_ends() -> None:
    """In the library they cannot move, because arctanh is infinite at exactly 0 and 1."""
    import torchattacks

    linear = nn.Linear(16, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))
        linear.bias.copy_(torch.tensor([0.2, -0.2]))
    model, black, label = nn.Sequential(nn.Flatten(), linear), torch.zeros(1, 1, 4, 4), torch.tensor([0])
    settings: dict[str, Any] = {"c": 10.0, "steps": 50, "lr": 0.05}
    assert torch.equal(torchattacks.CW(model, **settings)(black, label), black)
    ours = attack_of("CW", eps=1.0, **settings)(model, black, label, seeds=SEEDS[:1])
    assert model(ours).argmax(1).item() == 1


def test_each_image_is_charged_for_its_own_queries(attacked_model: Make) -> None:
    model = attacked_model(4)
    counter = QueryCounter(model, 4)
    attack_of("Square", eps=1e-4, n_queries=10)(counter, model.images[:4], model.labels[:4], seeds=SEEDS)
    assert counter.queries.max() - counter.queries.min() <= 1
    assert 10 <= counter.queries.max() <= 14
