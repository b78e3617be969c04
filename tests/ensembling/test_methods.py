"""Every method gives normalised log-probabilities, and its fit agrees with an independent computation."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from medrobust.core.errors import UserError
from medrobust.core.params.ensemble import EnsembleParams
from medrobust.ensembling import linear
from medrobust.ensembling.fit import fit_combination, fit_temperatures, tuned_method
from medrobust.ensembling.linear import feature_columns
from medrobust.ensembling.member_predictions import MemberPredictions, log_losses
from medrobust.ensembling.registry import METHODS
from medrobust.ensembling.weighted import convex_weights
from medrobust.models.combination import Combination
from tests.ensembling.drawn_predictions import draw, settings

NAMES = list(METHODS)


def reordered(sample: MemberPredictions, order: list[int]) -> MemberPredictions:
    return replace(sample, clean=sample.clean[order], robust=sample.robust[order])


def test_params_name_the_methods_of_the_registry() -> None:
    assert set(get_args(EnsembleParams.model_fields["method"].annotation)) == set(METHODS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cooled", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_an_ensemble_is_normalised_and_differentiable(name: str, cooled: bool, classes: int) -> None:
    sample = draw([2.0, 1.0], classes=classes)
    combination = fit_combination(sample, settings(method=name, temperature=cooled))
    logprobs = torch.from_numpy(sample.clean).requires_grad_(True)
    found = combination.module().double()(logprobs)
    assert torch.allclose(found.exp().sum(1), torch.ones(len(found), dtype=torch.float64))
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), logprobs)
    assert torch.isfinite(gradient).all()
    assert all(gradient[i].abs().sum() > 0 for i in combination.active(2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cooled", [False, True])
def test_the_order_of_members_changes_nothing(name: str, cooled: bool) -> None:
    sample, order = draw([2.0, 1.0, 1.5]), [2, 0, 1]
    params, other = settings(method=name, temperature=cooled), reordered(sample, order)
    first, second = fit_combination(sample, params), fit_combination(other, params)
    assert np.allclose(first.combine(sample.clean), second.combine(other.clean), atol=2e-3)


@pytest.mark.parametrize("name", ["equal", "convex"])
def test_an_ensemble_of_one_model_is_that_model(name: str) -> None:
    sample = draw([1.0])
    combination = fit_combination(sample, settings(method=name))
    assert combination.weights == [1.0]
    assert np.allclose(combination.combine(sample.clean), sample.clean[0])


@given(st.integers(0, 1000), st.floats(0.0, 1.0))
@hypothesis_settings(max_examples=15, deadline=None)
def test_convex_weights_beat_every_point_of_a_grid(seed: int, share: float) -> None:
    """Brute force over the simplex of three members, in steps of 0.02, for either objective."""
    sample = draw([1.5, 1.0, 0.5], seed=seed)
    steps = np.arange(51) / 50
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9])
    rows = np.arange(len(sample.labels))
    losses = np.stack(
        [
            -np.log(np.maximum(grid @ np.exp(part[:, rows, sample.labels]), 1e-300)).mean(1)
            for part in (sample.clean, sample.robust)
        ]
    )
    for robust_share, objective in ((share, np.array([1 - share, share]) @ losses), (None, losses.max(0))):
        weights = convex_weights(sample.clean, sample.robust, sample.labels, robust_share)
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()
        logprobs = (Combination(weights.tolist()).combine(part) for part in (sample.clean, sample.robust))
        parts = np.array(log_losses(sample, *logprobs))
        value = parts.max() if robust_share is None else np.array([1 - share, share]) @ parts
        assert value <= objective.min() + 1e-5
        assert np.abs(weights - grid[objective.argmin()]).max() < 0.08 or value > objective.min() - 1e-4


def test_the_worst_objective_minimises_the_larger_loss() -> None:
    """One member is correct on clean images only, the other one slightly on both: attacked, the first is worse."""
    labels = np.arange(60) % 3
    sharp, flat = 4 * np.eye(3)[labels], np.eye(3)[labels]
    wrong = 4 * np.eye(3)[(labels + 1) % 3]
    clean, robust = log_softmax(np.stack([sharp, flat]), -1), log_softmax(np.stack([wrong, flat]), -1)
    assert convex_weights(clean, robust, labels, 0.0)[0] > 0.99
    assert convex_weights(clean, robust, labels, None)[0] < 0.01


def test_a_small_weight_becomes_zero_and_the_largest_is_kept() -> None:
    sample = draw([1.5, 1.0])
    unlimited = fit_combination(sample, settings(method="convex", min_weight=0.0))
    assert unlimited.weights is not None
    assert 0.05 < min(unlimited.weights) < max(unlimited.weights) < 0.95
    limit = min(unlimited.weights) + 0.01
    assert fit_combination(sample, settings(method="convex", min_weight=limit)).weights == [1.0, 0.0]
    assert fit_combination(sample, settings(method="convex", min_weight=1.0)).active(2) == [0]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_temperature_is_the_best_of_a_grid(share: float) -> None:
    sample = draw([2.0, 1.0])
    scale = np.array([3.0, 0.3])[:, None, None]  # one member is too confident, one too little
    sample = replace(sample, clean=sample.clean * scale, robust=sample.robust * scale)
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 4001))
    count, classes = 2 * len(sample.labels), 3
    # Platt's targets: (n + 1) / (n + 2) for the true class, the rest in equal parts for the others.
    target = np.full((len(sample.labels), classes), 1 / (count + 2) / (classes - 1))
    target[np.arange(len(target)), sample.labels] = (count + 1) / (count + 2)
    found = fit_temperatures(sample, settings(temperature=True, robust_share=share))
    assert found is not None
    for clean, robust, temperature in zip(sample.clean, sample.robust, found, strict=True):
        losses = [
            sum(
                weight * -(target * log_softmax(part / t, 1)).sum(1).mean()
                for weight, part in ((1 - share, clean), (share, robust))
            )
            for t in grid
        ]
        assert temperature == pytest.approx(grid[int(np.argmin(losses))], rel=5e-3)


def test_temperature_scaling_changes_only_the_confidence_of_a_member() -> None:
    sample = draw([2.0])
    combination = fit_combination(sample, settings(method="equal", temperature=True))
    cooled = combination.combine(sample.clean)
    assert combination.temperatures is not None
    assert (cooled.argmax(1) == sample.clean[0].argmax(1)).all()
    assert np.allclose(cooled, log_softmax(sample.clean[0] / combination.temperatures[0], 1), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_stacking_is_plain_logistic_regression(classes: int, share: float) -> None:
    sample = draw([1.5, 1.0], classes=classes)
    combination = fit_combination(sample, settings(method="stacking", c_grid=[0.5], robust_share=share))
    features = np.vstack([feature_columns(sample.clean), feature_columns(sample.robust)])
    labels, weights = np.tile(sample.labels, 2), np.repeat([2 - 2 * share, 2 * share], len(sample.labels))
    plain = LogisticRegression(C=0.5, max_iter=5000, tol=1e-6).fit(features, labels, sample_weight=weights)
    expected = plain.predict_log_proba(feature_columns(sample.clean))
    assert np.allclose(combination.combine(sample.clean), expected, atol=1e-3)


def test_folds_keep_patients_together_and_cover_all_images() -> None:
    sample, seen = draw([1.0], patients=11), []
    for rest, fold in sample.folds(4):
        assert not set(sample.patients[rest]) & set(sample.patients[fold])
        seen += fold.tolist()
    assert sorted(seen) == list(range(len(sample.labels)))


def test_blending_does_not_fit_to_the_patients_that_select_its_penalty() -> None:
    sample = draw([1.5, 1.0], patients=12)
    params = settings(method="blending", holdout=0.33)
    _, held = next(sample.folds(3))
    chosen = tuned_method("blending", sample, params)
    other = sample.robust.copy()
    other[:, held] = other[:, held][:, :, ::-1]  # other predictions for the held-out patients
    changed = replace(sample, robust=other)
    assert chosen(sample).coefficients == chosen(changed).coefficients


def test_stacking_selects_the_penalty_that_is_best_out_of_fold() -> None:
    """The strongest penalty is best for noise, a weak one for clear predictions."""
    params = settings(method="stacking", c_grid=[1e-4, 10.0])
    assert np.abs(fit_combination(draw([0.0, 0.0]), params).coefficients or 0).max() < 0.01
    assert np.abs(fit_combination(draw([4.0, 4.0]), params).coefficients or 0).max() > 0.1


def test_ties_go_to_the_strongest_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "log_losses", lambda *_: (0.5, 0.5))
    sample = draw([1.0, 1.0])
    assert linear._best_penalty([(sample, sample)], settings(c_grid=[10.0, 0.01, 1.0])) == 0.01


def test_every_image_counts_the_same_in_the_selection_of_a_penalty() -> None:
    """A weak penalty is good on a large fold and very bad on a small one, which decides if folds count equally."""
    fitted, large, small = draw([3.0]), draw([3.0], seed=1), draw([-9.0], seed=2, patients=3, slices=1)
    grid, parts = settings(c_grid=[1e-3, 10.0]), [(fitted, large), (fitted, small)]
    assert [linear._best_penalty([part], grid) for part in parts] == [10.0, 1e-3]
    assert linear._best_penalty(parts, grid) == 10.0
    assert linear._best_penalty([(fitted, large), *[(fitted, small)] * 30], grid) == 1e-3


@pytest.mark.parametrize("name", ["stacking", "blending"])
def test_a_class_absent_from_validation_is_named(name: str) -> None:
    sample = draw([1.0, 1.0])
    sample = sample.select(sample.labels != 1)
    with pytest.raises(UserError, match=r"too few validation patients have c1.*Set ensemble\.method to equal"):
        fit_combination(sample, settings(method=name))
    assert fit_combination(sample, settings(method="convex")).weights is not None


def test_one_patient_cannot_be_divided_into_folds() -> None:
    sample = draw([1.0], patients=1)
    with pytest.raises(UserError, match=r"split\.val.*4 validation images of 1 patients cannot be divided"):
        fit_combination(sample, settings(method="stacking"))
