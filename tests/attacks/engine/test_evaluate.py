"""The result of a suite is the per-image worst case."""

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.engine.attempts import RECORDS
from medrobust.attacks.engine.evaluate import attack_suite, evaluate_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.methods.iterative import FGSM, PGD
from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.data.store import Subset

EPS = [0.02, 0.1, 0.3]
ATTACKS: list[dict[str, Any]] = [{"name": "fgsm"}, {"name": "pgd", "steps": 5, "loss": "margin"}]


def suite(eps: list[float] | None = None, attacks: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return resolve_suite("s", SuiteParams(norm="Linf", eps=eps or EPS, attacks=attacks or ATTACKS))


def test_the_engine_is_as_strong_as_running_everything_on_everything(trained: nn.Module, subset: Subset) -> None:
    table = evaluate_suite(trained, subset, suite(), seed=0)
    images, labels = subset.batch(range(40)), subset.targets(range(40))
    seeds = torch.arange(40)
    for eps in EPS:
        wrong = trained(images).argmax(1) != labels
        for attack in (FGSM(eps=eps), PGD(eps=eps, steps=5, loss="margin")):
            wrong |= trained(attack(trained, images, labels, seeds=seeds)).argmax(1) != labels
        ours = table[table["eps"] == eps]["fooled"].to_numpy()
        assert ours.sum() >= wrong.sum() - 1  # another random start may change one image


@pytest.mark.parametrize("size", [1, 7, 64])
def test_records_do_not_depend_on_the_batch_size(trained: nn.Module, subset: Subset, size: int) -> None:
    reference = evaluate_suite(trained, subset, suite(), seed=0, batch_size=40)
    table = evaluate_suite(trained, subset, suite(), seed=0, batch_size=size)
    assert list(table.columns) == RECORDS
    for column in ("fooled", "fooled_by", "adv_pred"):
        assert (table[column] == reference[column]).all()


class Double(nn.Module):
    """A convolutional network in float64, so that rounding does not depend on the batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval().double()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.double()).float()
        return logits


@pytest.mark.parametrize("settings", [{}, {"give_up": True}])
def test_every_attempt_is_the_same_for_all_batch_sizes(settings: Any, build: Any, subset: Subset) -> None:
    model = Double(build(1, 3))
    with torch.no_grad():
        labels = model(subset.batch(range(40))).argmax(1).numpy()
    correct = Subset(subset.store_images, subset.rows, labels, subset.ids, subset.patients, subset.classes)
    attacks = [{"name": "fgsm"}, {"name": "pgd", "steps": 6, "restarts": 2}, {"name": "square", "queries": 25}]
    resolved = resolve_suite("s", SuiteParams(norm="Linf", eps=[0.005, 0.02, 0.1], attacks=attacks, **settings))
    tables = [attack_suite(model, correct, resolved, seed=0, batch_size=size) for size in (1, 7, 64)]
    assert 0 < tables[0]["fooled"].mean() < 1
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], atol=1e-5, rtol=1e-4)


def test_robust_accuracy_is_not_above_that_of_torchattacks(trained: nn.Module, subset: Subset) -> None:
    import torchattacks

    eps = [0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3]
    table = evaluate_suite(trained, subset, suite(eps, [{"name": "pgd", "steps": 20}]), seed=0)
    images, labels = subset.batch(range(40)), subset.targets(range(40))
    for radius in eps:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            adv = torchattacks.PGD(trained, eps=radius, alpha=radius / 8, steps=20)(images, labels)
        theirs = (trained(adv).argmax(1) == labels).sum().item()
        assert (~table[table["eps"] == radius]["fooled"]).sum() <= theirs + 1


def test_being_fooled_at_a_radius_counts_at_every_larger_one(trained: nn.Module, subset: Subset) -> None:
    table = evaluate_suite(trained, subset, suite(), seed=0).pivot(index="id", columns="eps", values="fooled")
    assert (table[EPS[0]] <= table[EPS[1]]).all()
    assert (table[EPS[1]] <= table[EPS[2]]).all()


def test_adversarial_images_are_inside_the_ball_and_named(trained: nn.Module, subset: Subset) -> None:
    table = evaluate_suite(trained, subset, suite(), seed=0)
    assert (table["distance"] <= table["eps"] + 1e-6).all()
    fooled = table[table["fooled"]]
    assert set(fooled["fooled_by"]) <= {"natural", "fgsm", "pgd"}
    assert (fooled["adv_pred"] != fooled["label"]).all()
    natural = table[table["fooled_by"] == "natural"]
    assert (natural["clean_pred"] != natural["label"]).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "magic"}, r"no attack 'magic'.*Known: fgsm, pgd"),
        ({"name": "pgd", "step": 3}, r"pgd\.step: unknown hyper-parameter.*steps"),
        ({"name": "pgd", "steps": "many"}, r"pgd\.steps: got 'many'"),
        ({"name": "pgd", "alpha": 1e-5}, r"reaches .* of eps"),
    ],
)
def test_a_wrong_suite_is_refused_before_any_training(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        suite(attacks=[spec])


def test_a_resolved_suite_cannot_name_code_to_run(trained: nn.Module, subset: Subset) -> None:
    """Such a file may come with `dvc pull`; only names of the registry count."""
    own = {"name": "os", "module": "os", "class": "system", "hyperparameters": {}}
    with pytest.raises(UserError, match=r"suite: no attack 'os'\. Known: fgsm, pgd"):
        evaluate_suite(trained, subset, {**suite(), "attacks": [own]}, seed=0)


def test_a_suite_of_another_norm_is_refused() -> None:
    with pytest.raises(UserError, match="supports Linf, but the suite has L2"):
        resolve_suite("s", SuiteParams(norm="L2", eps=[0.1], attacks=[{"name": "pgd"}]))


def test_a_suite_has_the_hash_of_the_code_that_it_uses() -> None:
    code = {"attacks/fgsm": "a", "attacks/square": "b"}
    params = SuiteParams(norm="Linf", eps=[0.1], attacks=[{"name": "fgsm"}])
    assert resolve_suite("s", params, code)["code"] == {"attacks/fgsm": "a"}
    assert resolve_suite("s", params)["code"] == {}


class Outputs(nn.Module):
    """A model whose outputs are a function of logits."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output, self.weight = output, nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1)[:, :3]
        result: Tensor = self.output(logits)
        return result


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda logits: logits.softmax(1), r"model: returns probabilities, not logits\. Remove the softmax"),
        (
            lambda logits: logits * torch.nan,
            r"model: NaN or infinite outputs for 40 of 40 images\. Train it again",
        ),
        (lambda logits: logits[:, :2], r"labels: labels from 0 to 2, but the model has 2 classes \(0 to 1\)"),
    ],
)
def test_a_model_that_cannot_be_attacked_is_refused(output: Any, message: str, subset: Subset) -> None:
    with pytest.raises(UserError, match=message):
        evaluate_suite(Outputs(output), subset, suite(), seed=0)


def test_images_outside_the_range_are_refused(trained: nn.Module, subset: Subset) -> None:
    class Normalised(Subset):
        def batch(self, indices: Any) -> Tensor:
            return super().batch(indices) * 4 - 2

    wrong = Normalised(**vars(subset))
    with pytest.raises(UserError, match=r"images: values from -2 to .*Use images in \[0, 1\]"):
        evaluate_suite(trained, wrong, suite(), seed=0)
