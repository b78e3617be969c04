"""The published risk by hand, and the general one against a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medrobust.core.params.detection import RiskParams
from medrobust.detection.cost_tables import (
    CleanAndAttacked,
    Thresholds,
    choose_thresholds,
    costs_by_share,
    costs_by_threshold,
    prices_of,
    published_measure,
)
from medrobust.detection.measures import ScoredImages
from medrobust.detection.risk import (
    Prices,
    Unit,
    error_costs,
    expected_cost,
    mean_costs,
    published_risk,
    threshold_grid,
)
from tests.params import default_block


def test_the_published_measure_on_ten_images() -> None:
    clean_wrong = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    clean_rejected = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    adv_wrong = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    adv_rejected = np.array([1, 1, 0, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    # rejected 2, wrong and accepted 1; of the attacked, 3 wrong and accepted
    assert published_risk(clean_wrong, clean_rejected, adv_wrong, adv_rejected) == (6, 0.6)


def test_without_rejection_the_measure_is_clean_plus_attacked_error() -> None:
    """The study's own rows without detector: risk .965 is a clean error of .080 and 885 of 1000 fooled."""
    none = np.zeros(1000, dtype=bool)
    clean_wrong, adv_wrong = np.arange(1000) < 80, np.arange(1000) < 885
    assert published_risk(clean_wrong, none, adv_wrong, none) == (965, 0.965)


def test_costs_of_grades() -> None:
    costs = error_costs(3, True, under=2, over=1)
    assert costs.tolist() == [[0, 1, 2], [2, 0, 1], [4, 2, 0]]
    assert error_costs(3, False, under=2, over=1).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def judged(seed: int, n: int = 40, patients: int = 8) -> ScoredImages:
    rng = np.random.default_rng(seed)
    owner = np.arange(n) % patients
    chances = rng.dirichlet(np.ones(3), n)
    return ScoredImages(owner % 3, chances, np.array([f"p{o}" for o in owner]), rng.normal(size=n).round(2))


def slow_cost(
    side: ScoredImages, threshold: float, prices: Prices, unit: Unit, attacked: bool
) -> tuple[float, float]:
    price = prices.reject_attacked if attacked else prices.reject
    groups = (
        [[i] for i in range(len(side.labels))]
        if unit == "image"
        else [np.flatnonzero(side.patients == name).tolist() for name in np.unique(side.patients)]
    )
    paid, rejected = [], 0
    for rows in groups:
        kept = [i for i in rows if side.scores[i] <= threshold]
        if len(kept) < len(rows) / 2:
            paid.append(price)
            rejected += 1
        else:
            answer = int(np.mean([side.probabilities[i] for i in kept], axis=0).argmax())
            paid.append(prices.errors[side.labels[rows[0]], answer])
    return float(np.mean(paid)), rejected / len(groups)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["image", "patient"]), st.booleans(), st.sampled_from([8, 10]))
def test_mean_costs_agree_with_a_plain_loop(seed: int, unit: Unit, attacked: bool, patients: int) -> None:
    """Patients of five images, and of four, of which exactly half may be rejected."""
    side, prices = judged(seed, patients=patients), Prices(error_costs(3, True, 2, 1), 0.5, 0.1)
    thresholds = threshold_grid(side.scores, 9)
    costs, shares = mean_costs(side, thresholds, prices, unit, attacked=attacked)
    for threshold, cost, share in zip(thresholds, costs, shares, strict=True):
        assert (cost, share) == pytest.approx(slow_cost(side, threshold, prices, unit, attacked))


def test_the_published_measure_is_a_case_of_the_general_one() -> None:
    clean, attacked = judged(0), judged(1)
    unit = Prices(error_costs(3, False, 1, 1), 1.0, 0.0)
    for threshold in (-0.5, 0.3, np.inf):
        parts = [
            mean_costs(side, np.array([threshold]), unit, "image", attacked=flag)[0]
            for side, flag in ((clean, False), (attacked, True))
        ]
        wrong = [side.probabilities.argmax(1) != side.labels for side in (clean, attacked)]
        out = [side.scores > threshold for side in (clean, attacked)]
        _, risk = published_risk(wrong[0], out[0], wrong[1], out[1])
        assert 2 * expected_cost(parts[0], parts[1], 0.5)[0] == pytest.approx(risk)


def sides(seed: int) -> CleanAndAttacked:
    """Attacked images are misclassified half of the time, and their mean score is higher by 4."""
    rng = np.random.default_rng(seed)
    labels, patients = np.arange(120) % 3, np.array([f"p{i % 30:02}" for i in range(120)])
    wrong = rng.random(120) < 0.5
    clean_chances = 0.9 * np.eye(3)[labels] + 0.1 / 3
    bad = np.where(wrong, (labels + 2) % 3, labels)
    return CleanAndAttacked(
        ScoredImages(labels, clean_chances, patients, rng.normal(0, 1, 120)),
        ScoredImages(labels, 0.9 * np.eye(3)[bad] + 0.1 / 3, patients, rng.normal(4, 1, 120)),
    )


GRADES = prices_of(default_block(RiskParams, "detect.risk"), 3, ordered=True)


def cheapest(val: CleanAndAttacked, prices: Prices, shares: list[float]) -> Thresholds:
    return choose_thresholds(val, 0, prices, shares)


def test_the_cheapest_threshold_rejects_nothing_where_attacks_are_rare_and_most_attacks_where_common() -> None:
    rows = {
        (row["unit"], row["share"]): row
        for row in costs_by_share(sides(1), cheapest(sides(0), GRADES, [1e-4, 0.5]), GRADES)
    }
    rare, common = rows["image", 1e-4], rows["image", 0.5]
    assert rare["clean_rejected"] < 0.02
    assert rare["cost_with"] <= rare["cost_without"] + 0.01
    assert common["cost_with"] < 0.3 * common["cost_without"]
    assert common["threshold"] < rare["threshold"]
    assert set(rows) == {(unit, share) for unit in ("image", "patient") for share in (1e-4, 0.5)}


def test_a_threshold_is_chosen_on_validation_and_applied_to_test() -> None:
    val, test, flat = sides(0), sides(1), prices_of(default_block(RiskParams, "detect.risk"), 3, ordered=False)
    (row, *_) = costs_by_share(test, cheapest(val, flat, [0.3]), flat)
    curve = costs_by_threshold(test, cheapest(val, flat, [0.3]), flat)
    point = next(c for c in curve if c["unit"] == "image" and c["threshold"] == row["threshold"])
    assert row["cost_with"] == pytest.approx(0.7 * point["cost_clean"] + 0.3 * point["cost_attacked"])
    assert row["clean_rejected"] == point["clean_rejected"]
    (own, *_) = costs_by_share(test, cheapest(test, flat, [0.3]), flat)
    assert own["cost_with"] <= row["cost_with"] + 1e-12


def test_where_rejecting_does_not_pay_the_threshold_is_infinite() -> None:
    dear = prices_of(default_block(RiskParams, "detect.risk", reject=9, reject_attacked=9), 3, ordered=True)
    assert cheapest(sides(0), dear, [0.5]).cheapest["image", 0.5] == np.inf


def test_published_counts_of_a_suite() -> None:
    found = published_measure(sides(2), np.inf)
    assert found["R_with"] == found["R_without"] == found["cases"]
    rejecting = published_measure(sides(2), 2.0)
    assert rejecting["R_with"] < rejecting["R_without"]
    assert found["attacked_accuracy"] == pytest.approx(1 - found["cases"] / 120)
