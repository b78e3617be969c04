"""Every detector obeys the contract; its maths is compared with an independent one; bad input is named."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medrobust.attacks.base import margin
from medrobust.attacks.engine.evaluate import build_attack
from medrobust.core.errors import UserError
from medrobust.core.seeds import image_seeds
from medrobust.detection import base as detector_base
from medrobust.detection.attacked_images import SuiteAttack, changed_images
from medrobust.detection.base import Detector
from medrobust.detection.detectors.gmm import ClasswiseMixture
from medrobust.detection.detectors.kde import KernelDensity
from medrobust.detection.detectors.lid import IntrinsicDimensionality, local_dimensionality
from medrobust.detection.detectors.squeeze import median, reduce_bits
from medrobust.detection.features import DeepFeatures, Features, concatenate, extract_features
from medrobust.detection.fitting import Splits
from medrobust.detection.registry import DETECTORS
from medrobust.detection.statistics import distances
from medrobust.models.classifier import Classifier
from tests.hyperparameters import refusable
from tests.small import make_classifier

#: Hyper-parameters under which a detector runs on the small model.
SETTINGS: dict[str, dict[str, Any]] = {
    "dropout": {"rate": 0.3, "samples": 4},
    "lid": {"neighbours": 5, "reference": 40},
}


def blobs(n: int, seed: int, shift: float = 0.0, classes: int = 3, width: int = 6) -> tuple[Features, Tensor]:
    """Features of well-separated classes whose logits predict the true class."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    values = torch.randn(n, width, generator=rng) + 3 * torch.eye(classes, width)[labels] + shift
    logits = 5 * torch.eye(classes)[labels]
    samples = torch.randn(n, 4, classes, generator=rng).softmax(2)
    return Features((values[:, :4] * 2, values), logits, samples), labels


def build_detector(name: str, settings: dict[str, Any]) -> Detector:
    return detector_base.build_detector(name, settings, f"detect.detectors.{name}")


def row(at: int, part: Tensor) -> Tensor:
    return part[at : at + 1]


def fitted(name: str) -> Detector:
    clean, labels = blobs(90, 0)
    attacked, _ = blobs(60, 1, shift=2.0)
    detector = build_detector(name, SETTINGS.get(name, {}))
    return detector.fit(clean, labels, held_out=blobs(30, 2)[0], attacked=attacked, seed=3)


@pytest.fixture(params=DETECTORS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_scores_are_finite_one_per_image_and_independent_of_the_batch(name: str) -> None:
    detector, (features, _) = fitted(name), blobs(40, 7)
    scores = detector.score(features)
    assert scores.shape == (40,)
    assert torch.isfinite(scores).all()
    rows = [features.map(partial(row, at)) for at in range(40)]
    alone = torch.cat([detector.score(one) for one in rows])
    torch.testing.assert_close(alone, scores, rtol=1e-9, atol=1e-9)


def test_fitting_is_reproducible_and_leaves_the_global_random_state_alone(name: str) -> None:
    features, _ = blobs(40, 7)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first, second = fitted(name).score(features), fitted(name).score(features)
    assert torch.equal(first, second)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]


def test_a_score_can_be_differentiated_by_the_image(name: str, model: Classifier, splits: Splits) -> None:
    detector = build_detector(name, SETTINGS.get(name, {}))
    key = detector.extractor
    clean = extract_features(model, [key], splits.train, 0)[key]
    plain = splits.train.batch(range(len(splits.train)))
    noisy = (plain + (plain - 0.4).sign() / 5).clamp(0, 1)
    attacked = extract_features(model, [key], splits.train, 0, noisy)[key]
    detector.fit(clean, torch.from_numpy(splits.train.labels), held_out=clean, attacked=attacked)
    images = splits.test.batch(range(8)).requires_grad_(True)
    detector.score(key(model, images, image_seeds(splits.test.ids, 0)[:8])).sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()


def test_far_away_is_more_suspicious(name: str) -> None:
    if name in {"dropout", "squeeze"}:
        pytest.skip("uses predictions, not positions in feature space")
    detector = fitted(name)
    near, far = (detector.score(blobs(60, 9, shift=shift)[0]).mean() for shift in (0.0, 2.0))
    assert far > near


def test_disagreeing_samples_are_more_suspicious() -> None:
    logits = 5 * torch.eye(3)
    calm = logits.softmax(1)[:, None].expand(3, 4, 3)
    torn = torch.eye(3)[torch.tensor([0, 1, 2, 0])].expand(3, 4, 3)
    for name in ("dropout", "squeeze"):
        detector = fitted(name)
        assert (detector.score(Features((*blobs(3, 0)[0].layers,), logits, torn)) > 0.3).all()
        assert (detector.score(Features((*blobs(3, 0)[0].layers,), logits, calm)) < 1e-3).all()


def test_density_of_one_component_is_that_of_scipy() -> None:
    from scipy.stats import multivariate_normal

    features, labels = blobs(90, 0)
    detector = ClasswiseMixture(loading=0.05).fit(features, labels, held_out=features)
    values = features.penultimate.double().numpy()
    points = (values - values.mean(0)) / values.std(0)
    test, _ = blobs(12, 4)
    places = (test.penultimate.double().numpy() - values.mean(0)) / values.std(0)
    for row, k in enumerate(test.preds.tolist()):
        group = points[labels.numpy() == k]
        spread = np.cov(group.T, bias=True) + 0.05 * np.eye(6)
        wanted = -multivariate_normal(group.mean(0), spread).logpdf(places[row])
        assert detector.score(test)[row].item() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_mixtures_agree_with_scikit_learn(covariance: str) -> None:
    from sklearn.mixture import GaussianMixture

    features, labels = blobs(120, 0)
    detector = ClasswiseMixture(components=2, covariance=covariance)  # type: ignore[arg-type]
    detector.fit(features, labels, held_out=features, seed=4)
    values = features.penultimate.double().numpy()
    points = (values - values.mean(0)) / values.std(0)
    theirs = GaussianMixture(2, covariance_type=covariance, reg_covar=0.1, random_state=4)
    theirs.fit(points[labels.numpy() == 1])
    rows = features.preds == 1
    ours = -detector.score(features.map(lambda part: part[rows])).numpy()
    np.testing.assert_allclose(ours, theirs.score_samples(points[rows.numpy()]), atol=1e-5)


def test_kernel_density_agrees_with_scikit_learn() -> None:
    from sklearn.neighbors import KernelDensity as Theirs

    features, labels = blobs(90, 0)
    detector = KernelDensity(bandwidth=0.7).fit(features, labels, held_out=features)
    values = features.penultimate.double().numpy()
    mean, std = values.mean(0), values.std(0)
    test, _ = blobs(30, 5)
    scores = detector.score(test).numpy()
    for k in range(3):
        model = Theirs(bandwidth=0.7).fit(((values - mean) / std)[labels.numpy() == k])
        rows = test.preds.numpy() == k
        wanted = -model.score_samples((test.penultimate.double().numpy()[rows] - mean) / std)
        np.testing.assert_allclose(scores[rows], wanted, atol=1e-5)


def test_the_bandwidth_has_the_highest_leave_one_out_likelihood() -> None:
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KernelDensity as Theirs

    features, labels = blobs(60, 0)
    chosen = float(KernelDensity().fit(features, labels, held_out=features).state["bandwidth"])
    values = features.penultimate.double().numpy()
    points = (values - values.mean(0)) / values.std(0)

    def likelihood(width: float) -> float:
        groups = [points[labels.numpy() == k] for k in range(3)]
        parts = [cross_val_score(Theirs(bandwidth=width), group, cv=LeaveOneOut()) for group in groups]
        return float(np.concatenate(parts).sum())

    assert likelihood(chosen) >= max(likelihood(chosen * 2**0.5), likelihood(chosen / 2**0.5))


def lid_by_hand(point: np.ndarray, references: np.ndarray, k: int) -> float:
    radii = np.sort([math.dist(point, other) for other in references if not np.array_equal(point, other)])[:k]
    return -1 / float(np.mean([math.log(radius / radii[-1]) for radius in radii]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8), st.integers(1, 12))
def test_local_dimensionality_agrees_with_the_formula_written_out(seed: int, k: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    references = rng.normal(size=(25, width))
    points = np.concatenate([rng.normal(size=(4, width)), references[:3]])  # copies are not their own neighbours
    found = local_dimensionality(torch.from_numpy(points), torch.from_numpy(references), k)
    wanted = [lid_by_hand(point, references, k) for point in points]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


def test_local_dimensionality_finds_the_dimension_of_a_plane() -> None:
    rng = np.random.default_rng(0)
    flat = np.zeros((4000, 30))
    flat[:, :2] = rng.uniform(size=(4000, 2))
    inner = torch.from_numpy(flat[np.abs(flat[:, :2] - 0.5).max(1) < 0.3])
    assert local_dimensionality(inner, torch.from_numpy(flat), 100).mean().item() == pytest.approx(2, abs=0.1)


def test_mahalanobis_distances_agree_with_scikit_learn() -> None:
    from sklearn.covariance import LedoitWolf

    features, labels = blobs(90, 0)
    one = Features((features.penultimate,), features.logits)
    unseen, _ = blobs(50, 8)
    other = Features((unseen.penultimate,), unseen.logits)
    detector = build_detector("mahalanobis", {}).fit(one, labels, held_out=other)
    values = features.penultimate.double().numpy()
    points = (values - values.mean(0)) / values.std(0)
    centres = np.stack([points[labels.numpy() == k].mean(0) for k in range(3)])
    shrunk = LedoitWolf(assume_centered=True).fit(points - centres[labels.numpy()])
    held_out = (other.penultimate.double().numpy() - values.mean(0)) / values.std(0)
    distance, typical = (
        np.stack([shrunk.mahalanobis(part - centre) for centre in centres]).min(0) for part in (points, held_out)
    )
    wanted = (distance - typical.mean()) / typical.std(ddof=1)
    np.testing.assert_allclose(detector.score(one).numpy(), wanted, atol=1e-5)


def test_layers_of_mahalanobis_count_alike_on_images_that_it_has_not_seen() -> None:
    """Late features of training images lie closer to their class mean than those of other images."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 2

    def draw(late_spread: float) -> Features:
        early, late = torch.randn(160, 8, generator=rng), torch.randn(160, 8, generator=rng)
        return Features((early, 3 * torch.eye(2, 8)[labels] + late_spread * late), torch.eye(2)[labels])

    train, val, test, other = draw(1.0), draw(2.0), draw(2.0), draw(2.0)
    mixed = {
        "early": Features((other.layers[0], test.layers[1]), test.logits),
        "late": Features((test.layers[0], other.layers[1]), test.logits),
    }

    def shares(held_out: Features) -> dict[str, float]:
        """Variance of the score's change if one layer is that of other images."""
        detector = build_detector("mahalanobis", {}).fit(train, labels, held_out=held_out)
        return {name: float((detector.score(part) - detector.score(test)).var()) for name, part in mixed.items()}

    fair, unfair = shares(val), shares(train)
    assert 0.6 < fair["late"] / fair["early"] < 1.6
    assert unfair["late"] / unfair["early"] > 5, "standardised on training images, the late layer decides alone"


def test_no_block_of_distances_is_larger_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK", 16)
    sizes: list[torch.Size] = []
    square = distances.square_distances

    def spy(points: Tensor, references: Tensor) -> Iterator[Tensor]:
        for block in square(points, references):
            sizes.append(block.shape)
            yield block

    monkeypatch.setattr(distances, "square_distances", spy)
    clean, labels = blobs(90, 0)
    attacked, _ = blobs(50, 1, shift=2.0)
    KernelDensity().fit(clean, labels, held_out=clean).score(attacked)
    IntrinsicDimensionality(reference=0).fit(clean, labels, held_out=clean, attacked=attacked).score(attacked)
    assert sizes
    assert max(max(size) for size in sizes) <= 16


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, labels = blobs(90, 0)
    whole = KernelDensity().fit(clean, labels, held_out=clean).score(clean)
    monkeypatch.setattr(distances, "BLOCK", 7)
    torch.testing.assert_close(KernelDensity().fit(clean, labels, held_out=clean).score(clean), whole)


def test_squeezers_round_and_filter() -> None:
    images = torch.rand(2, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    assert len(reduce_bits(images, 2).mul(3).round(decimals=4).unique()) <= 4
    assert (reduce_bits(images, 2) - images).abs().max() <= 1 / 6 + 1e-6
    from scipy.ndimage import median_filter

    wanted = median_filter(images.numpy(), size=(1, 1, 3, 3), mode="mirror")
    np.testing.assert_array_equal(median(images, 3).numpy(), wanted)


def test_dropout_uses_the_models_own_layers(splits: Splits) -> None:
    model, seeds = make_classifier(0.5).eval(), image_seeds(splits.test.ids, 0)
    key = build_detector("dropout", {"samples": 6}).extractor
    samples = extract_features(model, [key], splits.test, 0)[key].samples
    assert samples is not None
    assert samples.shape == (len(splits.test), 6, 3)
    assert samples.std(1).max() > 0.01
    again = key(model, splits.test.batch([4]), seeds[4:5]).samples
    assert again is not None
    torch.testing.assert_close(again[0], samples[4])  # depends on the image's seed alone
    assert not any(module.training for module in model.modules())


def test_dropout_without_a_layer_is_an_error_that_names_the_remedy(model: Classifier, splits: Splits) -> None:
    key = build_detector("dropout", {}).extractor
    with pytest.raises(UserError, match=r"no dropout layer with a rate above 0.*detect\.detectors\.dropout\.rate"):
        key(model, splits.test.batch([0]), torch.tensor([1]))


def test_dropout_samples_of_an_ensemble_are_weighted_by_its_method(model: Classifier, splits: Splits) -> None:
    from medrobust.models.ensemble import EnsembleClassifier

    vote = EnsembleClassifier([model, make_classifier().eval()], [0.7, 0.3]).eval()
    images, seeds = splits.test.batch(range(5)), torch.arange(5)
    with torch.no_grad():
        barely, half = (
            build_detector("dropout", {"samples": 3, "rate": rate}).extractor(vote, images, seeds)
            for rate in (1e-9, 0.5)
        )
    assert barely.samples is not None
    assert half.samples is not None
    wanted = barely.logits.softmax(1)[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(barely.samples, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(half.samples.sum(2), torch.ones(5, 3))
    assert half.samples.std(1).max() > 0.01


def test_dropped_features_are_unbiased(model: Classifier, splits: Splits) -> None:
    from medrobust.detection.detectors.dropout import _dropped

    values = torch.ones(3, 5000)
    dropped = _dropped(values, 0.3, torch.arange(3), 0)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_deep_features_end_with_the_penultimate_ones(model: Classifier, splits: Splits) -> None:
    images = splits.test.batch(range(5))
    features = DeepFeatures()(model, images, torch.arange(5))
    assert [layer.shape[1] for layer in features.layers] == [6, 40]
    torch.testing.assert_close(features.penultimate, model.features(images))
    torch.testing.assert_close(features.logits, model(images))


def test_features_join_and_split(deep_features: dict[str, Features]) -> None:
    whole = deep_features["test"]
    parts = [whole.map(lambda part: part[:10]), whole.map(lambda part: part[10:])]
    assert torch.equal(concatenate(parts).penultimate, whole.penultimate)


def test_attacked_images_are_those_of_the_engine(model: Classifier, splits: Splits, suite: dict[str, Any]) -> None:
    from medrobust.attacks.engine.evaluate import evaluate_suite

    records = evaluate_suite(model, splits.test, suite, seed=5)
    images = changed_images(model, splits.test, SuiteAttack(suite, 0.1), 5, "")
    with torch.no_grad():
        wrong = model(images).argmax(1).numpy() != splits.test.labels
    assert np.array_equal(wrong, records["fooled"].to_numpy())
    assert wrong.any()


def test_attacked_images_are_past_the_border_between_two_classes(
    model: Classifier, splits: Splits, suite: dict[str, Any]
) -> None:
    """An attack that stops at its first success leaves images where the margin is hardly above 0."""
    attack = build_attack(suite["attacks"][0], 0.1, "Linf")
    labels = splits.test.targets(range(len(splits.test)))
    with torch.no_grad():
        far, near = (
            margin(model(changed_images(model, splits.test, each, 5, "")), labels)
            for each in (SuiteAttack(suite, 0.1), attack)
        )
    assert torch.equal(far > 0, near > 0)
    assert far[far > 0].median() > 2 * near[near > 0].median()


def test_of_several_attacks_the_strongest_counts(model: Classifier, splits: Splits, suite: dict[str, Any]) -> None:
    """Not the first that fools the model, which is often the one that finds the border."""
    weak, strong = {"name": "fgsm", "hyperparameters": {}}, {"name": "pgd", "hyperparameters": {"steps": 12}}
    labels, margins = splits.test.targets(range(len(splits.test))), []
    for attacks in ([weak], [strong], [weak, strong]):
        attack = SuiteAttack({**suite, "attacks": attacks}, 0.1)
        with torch.no_grad():
            margins.append(margin(model(changed_images(model, splits.test, attack, 5, "")), labels))
    first, second, both = margins
    torch.testing.assert_close(both, torch.maximum(first, second))
    assert ((first > 0) & (second > first + 0.1)).any(), "the stronger one matters here"


def test_attacks_on_outlined_pixels_are_made_again_within_their_masks(model: Classifier, splits: Splits) -> None:
    masks = np.zeros(splits.test.store_images.shape[:3], dtype=bool)
    masks[:, :6] = True
    outlined = replace(splits.test, store_masks=masks)
    entry = {"name": "iterative", "hyperparameters": {"steps": 2, "mask": "outlined"}}
    attack = SuiteAttack({"norm": "Linf", "attacks": [entry]}, 0.1)
    change = changed_images(model, outlined, attack, 5, "") - outlined.batch(range(len(outlined)))
    assert change[:, :, :6].any()
    assert not change[:, :, 6:].any()


# Bad input


def test_nan_features_are_named(name: str) -> None:
    clean, labels = blobs(90, 0)
    broken = clean.penultimate.clone()
    broken[[3, 8], 1] = torch.nan
    bad = replace(clean, layers=(clean.layers[0], broken))
    with pytest.raises(UserError, match="2 of 90 images have a NaN"):
        build_detector(name, SETTINGS.get(name, {})).fit(bad, labels, held_out=bad, attacked=clean)
    with pytest.raises(UserError, match="2 of 90 images have a NaN"):
        fitted(name).score(bad)


@pytest.mark.parametrize("name", ["gmm", "kde", "mahalanobis", "lid", "dfeat"])
def test_constant_features_are_named(name: str) -> None:
    clean, labels = blobs(90, 0)
    flat = replace(clean, layers=tuple(torch.ones_like(layer) for layer in clean.layers))
    with pytest.raises(UserError, match="features are constant"):
        build_detector(name, SETTINGS.get(name, {})).fit(flat, labels, held_out=flat, attacked=flat)


@pytest.mark.parametrize("name", ["gmm", "kde", "mahalanobis", "dfeat"])
def test_some_constant_features_are_left_out(name: str) -> None:
    clean, labels = blobs(90, 0)
    attacked, _ = blobs(60, 1, shift=2.0)

    def padded(features: Features) -> Features:
        return replace(
            features, layers=tuple(torch.cat([layer, torch.zeros(len(layer), 3)], 1) for layer in features.layers)
        )

    plain = build_detector(name, {}).fit(clean, labels, held_out=clean, attacked=attacked).score(attacked)
    same = (
        build_detector(name, {})
        .fit(padded(clean), labels, held_out=padded(clean), attacked=padded(attacked))
        .score(padded(attacked))
    )
    torch.testing.assert_close(same, plain)


def test_fewer_images_in_a_class_than_components_is_named() -> None:
    clean, labels = blobs(90, 0)
    rows = torch.cat([torch.nonzero(labels != 2).flatten(), torch.nonzero(labels == 2).flatten()[:3]])
    few = clean.map(lambda part: part[rows])
    with pytest.raises(UserError, match="class 2 has 3 training images, 4 are needed"):
        ClasswiseMixture(components=4).fit(few, labels[rows], held_out=few)


def test_too_few_references_for_the_neighbours_are_named() -> None:
    clean, labels = blobs(30, 0)
    with pytest.raises(UserError, match="10 reference images for 20 neighbours"):
        IntrinsicDimensionality(reference=10).fit(clean, labels, held_out=clean, attacked=clean)


def test_supervised_detectors_refuse_clean_images_only(name: str) -> None:
    clean, labels = blobs(90, 0)
    detector = build_detector(name, SETTINGS.get(name, {}))
    assert detector.supervised == (name in {"lid", "dfeat"})
    if detector.supervised:
        with pytest.raises(UserError, match="supervised"):
            detector.fit(clean, labels, held_out=clean)


def test_scoring_before_fitting_or_with_another_model_is_refused(name: str) -> None:
    clean, _ = blobs(9, 0)
    with pytest.raises(UserError, match="was not fitted"):
        build_detector(name, SETTINGS.get(name, {})).score(clean)
    with pytest.raises(UserError, match="other widths"):
        fitted(name).score(blobs(8, 0, classes=4, width=8)[0])


@pytest.mark.parametrize("name", DETECTORS)
def test_what_the_annotations_do_not_allow_is_refused(name: str) -> None:
    module, _, kind = DETECTORS[name].partition(":")
    for key, value in refusable(getattr(import_module(module), kind)):
        with pytest.raises(UserError, match=rf"{name}\.{key}: got "):
            build_detector(name, {key: value})


def test_names_and_settings_are_checked() -> None:
    with pytest.raises(UserError, match=r"gmm\.component: unknown.*components"):
        build_detector("gmm", {"component": 2})
    with pytest.raises(UserError, match=r"gmm\.components: got '2'"):
        build_detector("gmm", {"components": "2"})
    with pytest.raises(UserError, match=r"gmm\.covariance: got 'diagonal'.*'full' or 'diag'"):
        build_detector("gmm", {"covariance": "diagonal"})
    with pytest.raises(UserError, match=r"dropout\.samples: got 1.*greater than or equal to 2"):
        build_detector("dropout", {"samples": 1})
    with pytest.raises(UserError, match="odd window"):
        build_detector("squeeze", {"window": 2})


def test_only_detectors_of_the_registry_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pathlib:Path", "medrobust.detection.detectors.gmm:ClasswiseMixture"):
        with pytest.raises(UserError, match=rf"no detector '{name}'.*gmm, kde"):
            build_detector(name, {})
    monkeypatch.setitem(DETECTORS, "mine", "medrobust.detection.detectors.gmm:ClasswiseMixture")
    assert build_detector("mine", {"components": 2}).hyperparameters()["components"] == 2


def test_a_model_without_a_backbone_is_named() -> None:
    with pytest.raises(UserError, match="Linear has no backbone"):
        DeepFeatures()(torch.nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1))
