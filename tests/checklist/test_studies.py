"""Audit and checklist blame the published setting of each study for its known faults, and clear the corrected one.

The settings are those of the presets of the GPU size. The images are few, and the model is small; radii and step
sizes are scaled together to the radius at which half of its images are robust.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.engine.suite import resolve_suite
from medrobust.checklist.base import ImageSample, ModelEvidence, run_check
from medrobust.checklist.challenge import run_curve
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

TRAINING, BIT_DEPTH = (next(c for c in CHECKS if c.name == name) for name in ("training attack", "bit depth"))
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


class Brightness(nn.Module):
    """Two classes: darker and brighter than a grey level."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, images: Tensor) -> Tensor:
        above = images.flatten(1).mean(1) - self.level / 255
        return torch.stack([-above, above], 1) * 1000


def test_a_radius_below_one_grey_level_is_lost_when_images_are_stored() -> None:
    """The smallest radius of ma2020: attacks of 0.3 grey levels fool the model until the image is a file."""
    radii = columns("ma2020")[0].attacks.suites["pgd"].eps
    assert min(radii) == pytest.approx(0.3 / 255)
    batch, labels = torch.full((40, 1, 6, 6), 100 / 255), torch.zeros(40, dtype=torch.int64)
    sample = ImageSample(np.arange(40), batch, labels, torch.arange(40))
    outcomes = {}
    for eps in radii[:2]:
        curve = run_curve(model := Brightness(100.2), sample, eps, steps=10, levels=255)
        evidence = ModelEvidence(model, sample, 2, labels.numpy(), labels.numpy(), curve, [])
        outcomes[eps] = run_check(BIT_DEPTH, evidence).outcome
    assert list(outcomes.values()) == ["warn", "pass"]


def test_no_attacker_knew_the_detectors_of_ma2020() -> None:
    """The report calls detectors "not attacked" by those who know them; the corrected column attacks them."""
    published, corrected = columns("ma2020")
    assert (published.detect.adaptive.images, published.detect.seen) == (0, "pgd")
    assert corrected.detect.adaptive.images > 0
    assert set(corrected.detect.adaptive.attacks) == {"joint", "orthogonal", "matching"}
