"""Audit and checklist blame the published setting of each study for its known faults, and clear the corrected one.

The settings are those of the presets of the GPU size. The images are few, and the model is small; radii and step
sizes are scaled together to the radius at which half of its images are robust.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from torch import nn

from medrobust.attacks.engine.suite import resolve_suite
from medrobust.checklist.base import ModelEvidence, run_check
from medrobust.checklist.thresholds import CHECKS
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.schema import Params, check_params, override
from medrobust.core.params.yaml_file import parse_params
from medrobust.data.audit.audit_split import audit_split
from medrobust.data.split import make_split
from medrobust.data.store import ImageStore, Subset
from tests.checklist.conftest import EPS, Check
from tests.data.stores import store
from tools.replay import params_texts, read_study, studies

TRAINING = next(check for check in CHECKS if check.name == "training attack")
SUITES = [(name, suite) for name in studies() for suite in read_study(name).expected.suites]


@cache
def columns(name: str) -> tuple[Params, Params]:
    """The params of the replay as published and as it should be."""
    texts = params_texts(name, "gpu")
    published, corrected = (check_params(parse_params(texts[key], key), key) for key in ("published", "corrected"))
    return published, corrected


def tiny(strategy: str) -> ImageStore:
    """Slices of 24 patients with the published split of the strategy, and synthetic copies of slices of train.

    In published folders each patient has slices in train and test; published folds keep patients whole.
    """
    data = store([8, 8, 8], slices=6)
    manifest, row = data.manifest, np.arange(len(data.manifest))
    if strategy == "published_folds":
        manifest["published_split"] = [str(number // 6 % 5 + 1) for number in row]
        return data
    if strategy == "random":
        return data
    manifest["published_split"] = np.where(row % 6 == 0, "test", "train")
    sources = row[row % 6 != 0][::3]
    copies = manifest.iloc[sources].assign(kind="synthetic", parent="", patient="", published_split="train")
    copies["id"] = "synthetic_" + copies["id"]
    both = pd.concat([manifest, copies], ignore_index=True)
    return ImageStore(np.concatenate([data.images, data.images[sources]]), both, data.header)


def reasons(params: Params, strategy: str) -> str:
    """What the audit says of the split of these params, without a draw or merged classes."""
    data = tiny(strategy)
    rules = params.split.model_copy(update={"counts": None, "small_class": "fail", "merge": {}})
    table = make_split(data.manifest, data.header, rules, params.seed)
    return "; ".join(audit_split(data, table, params.audit).metrics["reasons"])


@pytest.mark.parametrize("name", studies())
def test_the_audit_names_the_leaks_of_the_published_split_and_clears_the_corrected_one(name: str) -> None:
    published, corrected = columns(name)
    expected = read_study(name).expected.audit
    if not expected:
        pytest.skip("the study's data have no patients")
    own, other = published.split.strategy, corrected.split.strategy
    found, cleared = reasons(published, own), reasons(corrected, other if other == "published_folds" else own)
    for reason in expected:
        assert reason in found
        assert reason not in cleared


def scaled(suite: SuiteParams) -> SuiteParams:
    """The suite with its largest radius at that of the checks, step sizes in proportion, and few queries."""
    attacks, factor = [], EPS / max(suite.eps)
    for spec in suite.attacks:
        attack = dict(spec)
        if "alpha" in attack:
            attack["alpha"] *= factor
        if "queries" in attack:
            attack["queries"] = min(attack["queries"], 50)
        attacks.append(attack)
    return suite.model_copy(update={"eps": [EPS], "attacks": attacks})


@pytest.mark.parametrize(("name", "suite"), SUITES)
def test_the_checklist_blames_the_published_suite_and_clears_the_corrected_one(
    name: str, suite: str, sound: nn.Module, check: Check
) -> None:
    outcomes = []
    for params in columns(name):
        resolved = resolve_suite(suite, scaled(params.attacks.suites[suite]))
        record = check(sound, {suite: resolved}, count=40, queries=20)
        outcomes.append({key: line.split(":")[0] for key, line in record["suites"][suite]["checks"].items()})
    published, corrected = outcomes
    for each in read_study(name).expected.suites[suite]:
        assert published[each] in {"warn", "fail"}, each
        assert corrected[each] in {"pass", "skip"}, each


@pytest.mark.parametrize("name", studies())
def test_a_training_that_cannot_reach_its_radius_is_named(name: str, sound: nn.Module, images: Subset) -> None:
    named = []
    for params in columns(name):
        for backbone, model in params.models.items():
            block = override(params.adv, model.adv, backbone).model_dump()
            evidence = ModelEvidence(sound, None, 3, images.labels, images.labels, None, [block])  # type: ignore[arg-type]
            if run_check(TRAINING, evidence).outcome == "warn":
                named.append((params is columns(name)[0], backbone))
    assert named == [(True, backbone) for backbone in read_study(name).expected.trainings]
