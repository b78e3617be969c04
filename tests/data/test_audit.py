"""The audit finds what is planted, and nothing else."""

import numpy as np

from medrobust.data.audit import audit, judge
from medrobust.data.split import make_split
from medrobust.params.data import AuditParams
from tests.data.stores import split_params as params
from tests.data.stores import store

RULES = AuditParams(near_duplicate=0.995, on_leak="warn")


def test_a_patient_split_is_clean_and_a_random_one_leaks() -> None:
    data = store([8, 8, 8])
    clean, _ = audit(data, make_split(data.manifest, data.header, params(), 0), RULES)
    assert clean["verdict"] == "clean"
    assert clean["nn_accuracy"] == clean["nn_accuracy_without_own_patient"]
    leaking, _ = audit(data, make_split(data.manifest, data.header, params(strategy="random"), 0), RULES)
    assert leaking["verdict"] == "leaking"
    assert leaking["nn_accuracy"] == 1.0
    assert leaking["nn_accuracy_without_own_patient"] < 0.7
    assert any("test patients also stand in train" in reason for reason in leaking["reasons"])


def test_planted_copies_are_found() -> None:
    data = store([8, 8, 8])
    table = make_split(data.manifest, data.header, params(), 0)
    test, train = (int(np.flatnonzero(table["split"] == name)[0]) for name in ("test", "train"))
    data.images[test] = data.images[train]
    near, pairs = audit(data, table, RULES)
    assert near["test_images_with_near_copy"] == 1
    assert near["verdict"] == "suspect"
    assert (pairs["test_row"].iloc[0], pairs["other_row"].iloc[0]) == (test, train)
    hashes = data.manifest["sha256"].tolist()
    hashes[test] = hashes[train]
    data.manifest["sha256"] = hashes
    exact, _ = audit(data, table, RULES)
    assert exact["test_images_with_exact_copy"] == 1
    assert exact["verdict"] == "leaking"


def test_unknown_patients_are_a_doubt() -> None:
    data = store([4, 4, 4])
    data.manifest["patient"] = ""
    found, _ = audit(data, make_split(data.manifest, data.header, params(strategy="random"), 0), RULES)
    assert found["verdict"] == "suspect"
    assert "no patient id" in found["reasons"][-1]


def test_nothing_against_a_split_is_no_reason() -> None:
    data = store([4, 4, 4])
    metrics, _ = audit(data, make_split(data.manifest, data.header, params(), 0), RULES)
    assert judge(metrics) == []
