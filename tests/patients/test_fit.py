"""Aggregates are fitted on training patients; the result is saved as a folder that `load` understands."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medrobust.core.errors import UserError
from medrobust.core.params.patient import PatientParams
from medrobust.core.records import read_json, write_json
from medrobust.models import checkpoint
from medrobust.models.aggregates import GatedAttention, MaxLogProbability, MeanLogProbability, Recurrent
from medrobust.models.card import not_fitted, weights_hash
from medrobust.models.folder import load
from medrobust.models.patient import PatientModel, save_patient_model
from medrobust.patients.fit import fit_patient_model
from medrobust.patients.subsets import patient_groups
from tests.params import default_block
from tests.patients.cohort import classifier, one_group, splits

KINDS = ("mean", "max", "attention", "gru")


def params(kind: str, epochs: int = 5) -> PatientParams:
    return default_block(PatientParams, "patient", aggregate=kind, epochs=epochs, hidden=4)


def fitted(kind: str, epochs: int = 5) -> tuple[PatientModel, int]:
    data = splits()
    groups = [patient_groups(data, name) for name in ("train", "val")]
    return fit_patient_model(classifier(), groups[0], groups[1], params(kind, epochs), 1, seed=0)


def test_mean_and_max_of_a_single_image_are_the_network() -> None:
    network, images = classifier(), torch.rand(3, 1, 12, 12)
    for aggregate in (MeanLogProbability(), MaxLogProbability()):
        model = PatientModel(network, aggregate, 1)
        assert torch.allclose(model(images).log_softmax(1), network(images).log_softmax(1), atol=1e-6)


def test_the_mean_is_that_of_the_log_probabilities() -> None:
    network, images = classifier(), torch.rand(2, 5, 12, 12)
    logits = PatientModel(network, MeanLogProbability(), 1)(images)
    for row in range(2):
        each = torch.stack([network(images[row, k].view(1, 1, 12, 12)).log_softmax(1)[0] for k in range(5)])
        assert torch.allclose(logits[row], each.mean(0), atol=1e-6)
        assert torch.allclose(PatientModel(network, MaxLogProbability(), 1)(images)[row], each.amax(0), atol=1e-6)


def test_attention_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    pooling, bag = GatedAttention(6, 4, 3), torch.randn(1, 5, 6)
    weights = []
    for image in bag[0]:  # equation 9: w^T (tanh(V h) * sigmoid(U h)), then a softmax over the images
        gate = torch.sigmoid(pooling.gate.weight @ image + pooling.gate.bias)
        weights.append(pooling.weight(torch.tanh(pooling.content.weight @ image + pooling.content.bias) * gate))
    attention = torch.cat(weights).softmax(0)
    expected = pooling.head((attention[:, None] * bag[0]).sum(0))
    assert torch.allclose(pooling(bag)[0], expected, atol=1e-6)
    assert torch.allclose(pooling(bag), pooling(bag.flip(1)), atol=1e-6)


def test_the_recurrent_aggregate_depends_on_the_order() -> None:
    torch.manual_seed(0)
    unit, images = Recurrent(6, 4, 3), torch.randn(1, 5, 6)
    assert not torch.allclose(unit(images), unit(images.flip(1)), atol=1e-4)


def test_the_recurrent_aggregate_leaves_cudnn_out_which_gives_it_no_gradient_in_eval_mode() -> None:
    unit, seen = Recurrent(6, 4, 3).eval(), []
    unit.gru.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    before = torch.backends.cudnn.enabled
    features = torch.randn(1, 5, 6, requires_grad=True)
    unit(features).sum().backward()
    assert seen == [False]
    assert torch.backends.cudnn.enabled == before
    assert features.grad is not None
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["attention", "gru"])
def test_fitting_is_reproducible_and_lowers_the_log_loss(kind: str) -> None:
    first, epoch = fitted(kind, epochs=30)
    second, _ = fitted(kind, epochs=30)
    state = second.aggregate.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in first.aggregate.state_dict().items())
    assert 1 <= epoch <= 30
    start, _ = fitted(kind, epochs=1)
    group = one_group(splits(), "val")
    images, labels = group.batch(range(len(group))), group.targets(range(len(group)))
    losses = [torch.nn.functional.cross_entropy(model(images), labels).item() for model in (first, start)]
    assert losses[0] <= losses[1]


def test_a_learning_rate_at_which_fitting_diverges_is_named() -> None:
    data = splits()
    groups = [patient_groups(data, name) for name in ("train", "val")]
    diverging = default_block(PatientParams, "patient", aggregate="attention", epochs=2, hidden=4, lr=1e37)
    with pytest.raises(UserError, match=r"patient\.lr: 1e\+37: no epoch .* finite .*Set a lower patient\.lr"):
        fit_patient_model(classifier(), groups[0], groups[1], diverging, 1, seed=0)


def test_mean_has_nothing_to_fit() -> None:
    assert fitted("mean")[1] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_patient_model_is_loaded_equal(network: Path, tmp_path: Path, kind: str) -> None:
    data = splits(patients=4)
    groups = [patient_groups(data, name) for name in ("train", "val")]
    model, epoch = fit_patient_model(checkpoint.load(network), groups[0], groups[1], params(kind, 2), 1, seed=0)
    save_patient_model(tmp_path / "p", network, model, {"aggregate": kind, "hidden": 4, "epoch": epoch})
    loaded = load(tmp_path / "p")
    images = torch.rand(2, 4, 32, 32)
    assert torch.allclose(loaded(images), model(images), atol=1e-6)
    assert not_fitted(tmp_path / "p") is None
    assert len(weights_hash(tmp_path / "p")) == 64


def saved(network: Path, folder: Path) -> Path:
    model = PatientModel(checkpoint.load(network), GatedAttention(512, 4, 3), 1)
    save_patient_model(folder, network, model, {"aggregate": "attention", "hidden": 4})
    return folder


def test_a_patient_model_of_other_classes_or_weights_is_refused(network: Path, tmp_path: Path) -> None:
    folder = saved(network, tmp_path / "p")
    card = read_json(folder / "card.json")
    write_json(folder / "card.json", {**card, "patient": {**card["patient"], "classes": ["a", "c", "b"]}})
    with pytest.raises(UserError, match=r"was fitted for \['a', 'c', 'b'\].*dvc repro patient"):
        load(folder)
    write_json(folder / "card.json", {**card, "sha256": "0" * 64})
    with pytest.raises(UserError, match="has changed since the aggregate was fitted"):
        load(folder)
    write_json(folder / "card.json", card)
    state = load_file(folder / "aggregate.safetensors")
    save_file({**state, "mean": state["mean"] + 1}, folder / "aggregate.safetensors")
    with pytest.raises(UserError, match=r"aggregate\.safetensors: is not the file.*dvc checkout"):
        load(folder)
