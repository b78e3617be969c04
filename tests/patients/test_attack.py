"""A patient is attacked through all images, or through some; the worst scores give the AUROC under attack."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.run import AttackOutputs
from medrobust.core.params.patient import PatientParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_metrics, read_table
from medrobust.models.aggregates import MeanLogProbability
from medrobust.models.patient import PatientModel
from medrobust.patients.attack import attack_patients, harmful_scores
from medrobust.patients.few_images import few_images
from medrobust.patients.subsets import PatientSubset, patient_groups
from tests.params import default_block
from tests.patients.cohort import binary, classifier, one_group, splits, without
from tests.small import Backbone

REPORT = default_block(ReportParams, "report", bootstrap=200)
SUITE: dict[str, Any] = {
    "name": "s", "norm": "Linf", "eps": [0.01, 0.03], "give_up": False, "code": {},
    "attacks": [
        {"name": "pgd", "hyperparameters": {"steps": 8, "loss": "margin"}},
        {"name": "apgd", "hyperparameters": {"steps": 8, "loss": "margin"}},
    ],
}  # fmt: skip


def model(classes: int = 3) -> PatientModel:
    return PatientModel(classifier(classes), MeanLogProbability(), 1).eval()


def relabelled(group: PatientSubset, patients: PatientModel) -> PatientSubset:
    """The group with the model's own predictions as labels, near the boundary, so that attacks can succeed."""
    images, backbone = group.batch(range(len(group))), patients.network.backbone
    assert isinstance(backbone, Backbone)
    with torch.no_grad():
        for _ in range(50):  # the mean of the patients' logits becomes nearly equal for all classes
            backbone.fc.bias.sub_(patients(images).mean(0))
        group.labels[:] = patients(images).argmax(1).numpy()
    return group


def test_every_image_of_an_attacked_patient_stays_in_the_ball_and_the_decision_changes() -> None:
    patients = model()
    group = relabelled(one_group(splits()), patients)
    attempts = attack_suite(patients, group, SUITE, seed=0)
    table = worst_case(attempts, SUITE["eps"])
    assert table["id"].nunique() == len(group)
    assert (table["distance"].dropna() <= table["eps"].loc[table["distance"].notna()] * 1.0001 + 1e-7).all()
    by_radius = table.groupby("eps")["fooled"].sum()
    assert by_radius.is_monotonic_increasing
    assert by_radius.iloc[-1] > 0


def test_results_do_not_depend_on_the_batch() -> None:
    patients = model()
    group = relabelled(one_group(splits()), patients)
    whole = attack_suite(patients, group, SUITE, seed=0, batch_size=64)
    single = attack_suite(patients, group, SUITE, seed=0, batch_size=1)
    pd.testing.assert_frame_equal(whole, single, check_exact=False, atol=1e-5)


def test_an_attacker_of_all_images_is_not_weaker_than_one_of_some() -> None:
    patients = model()
    group = relabelled(one_group(splits()), patients)
    params = default_block(PatientParams, "patient", attacked_images=[1, 2, 3, 4, 9], eps=0.03)
    result = few_images(patients, [group], params, REPORT, seed=0)
    shares = list(result["images_attacked"].values())
    assert list(result["images_attacked"]) == ["1", "2", "3", "4", "9"]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]
    assert shares[3] == shares[4]  # a patient has four images
    # An observed share of 0 or 1 has an interval too.
    assert all(
        low <= share <= high and low < high
        for share, (low, high) in zip(shares, result["images_attacked_ci"].values(), strict=True)
    )
    assert (
        few_images(patients, [group], default_block(PatientParams, "patient", attacked_images=[]), REPORT, 0) == {}
    )


def test_only_the_images_of_largest_promise_change(monkeypatch: pytest.MonkeyPatch) -> None:
    from medrobust.attacks.methods.iterative import CWPGD

    patients = model()
    group = relabelled(one_group(splits()), patients)
    images = group.batch(range(len(group))).requires_grad_(True)
    labels = group.targets(range(len(group)))
    logits = patients(images)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1) - logits.gather(1, labels[:, None])[:, 0]
    (gradient,) = torch.autograd.grad(others.sum(), images)
    first = gradient.abs().sum((2, 3)).argmax(1)  # one channel per image
    seen = []
    run = CWPGD.perturb

    def spy(self: CWPGD, net: Any, given: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(given)
        clean = given.clone()
        assert torch.allclose(net(clean), logits[: len(given)], atol=1e-5) or len(seen) > 1
        return run(self, net, given, *rest)

    monkeypatch.setattr(CWPGD, "perturb", spy)
    few_images(patients, [group], default_block(PatientParams, "patient", attacked_images=[1, 3]), REPORT, 0)
    assert [given.shape[1] for given in seen] == [1, 3]
    assert all(torch.equal(seen[0][row, 0], images[row, first[row]]) for row in range(len(group)))


def test_the_auroc_under_attack_is_that_of_an_independent_computation() -> None:
    patients = model(2)
    group = binary(one_group(splits(patients=20)))
    scores = harmful_scores(patients, group, SUITE, seed=0)
    images, labels = group.batch(range(len(group))), group.labels
    with torch.no_grad():
        logits = patients(images).numpy()
    clean = logits[:, 1] - logits[:, 0]
    toward_wrong = np.where(labels == 1, clean - scores, scores - clean)  # 2 radii x n
    assert (toward_wrong >= -1e-6).all()
    assert (np.where(labels == 1, scores[0] - scores[1], scores[1] - scores[0]) >= -1e-6).all()
    # The network is smooth, so a brute-force PGD of many small steps bounds what the attack may have missed.
    current = images.clone()
    sign = torch.tensor(np.where(labels == 1, -1.0, 1.0)).float()
    for _ in range(60):
        current.requires_grad_(True)
        out = patients(current)
        (gradient,) = torch.autograd.grad((sign * (out[:, 1] - out[:, 0])).sum(), current)
        moved = current.detach() + 0.03 / 20 * gradient.sign()
        current = torch.minimum(torch.maximum(moved, images - 0.03), images + 0.03).clamp(0, 1)
    with torch.no_grad():
        out = patients(current)
    brute = (out[:, 1] - out[:, 0]).numpy()
    assert np.abs(brute - scores[1]).max() < 0.05 * np.abs(brute - clean).max()
    assert abs(roc_auc_score(labels, brute) - roc_auc_score(labels, scores[1])) < 0.02


def test_the_auroc_under_autoattack_is_that_of_its_gradient_attacks() -> None:
    patients, group = model(2), binary(one_group(splits(patients=20)))
    weak = {"steps": 8, "queries": 5, "targets": 1, "allow_weak": True}
    suite = {**SUITE, "attacks": [{"name": "autoattack", "hyperparameters": weak}]}
    scores, of_pgd = harmful_scores(patients, group, suite, seed=0), harmful_scores(patients, group, SUITE, seed=0)
    with torch.no_grad():
        logits = patients(group.batch(range(len(group)))).numpy()
    moved = of_pgd - (logits[:, 1] - logits[:, 0])
    assert np.abs(scores - of_pgd).max() < 0.1 * np.abs(moved).max()


def test_a_suite_without_gradient_attacks_has_no_auroc_under_attack(tmp_path: Path) -> None:
    outs = AttackOutputs(tmp_path / "r.parquet", tmp_path / "m.json", tmp_path / "c.csv")
    suite = {**SUITE, "attacks": [{"name": "square", "hyperparameters": {"queries": 5}}]}
    settings: dict[str, Any] = {"bit_depth": 8, "seed": 0, "report": REPORT, "made_on": {"data": "d"}}
    attack_patients(model(2), [binary(one_group(splits()))], suite, outs, **settings)
    record = read_metrics(outs.metrics)
    assert "robust_accuracy" in record
    assert "robust_auroc" not in record


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"name": "bim", "hyperparameters": {"mask": "gradcam"}}, "bim with mask: gradcam acts on single images"),
        ({"name": "cw", "hyperparameters": {"mask": "outlined"}}, "cw with mask: outlined acts on single images"),
        ({"name": "universal", "hyperparameters": {}}, "universal acts on single images"),
        ({"name": "transfer", "hyperparameters": {"source": "net-clean"}}, "transfer acts on single images"),
    ],
)
def test_a_suite_with_attacks_on_single_images_is_left_out(
    tmp_path: Path, entry: dict[str, Any], reason: str
) -> None:
    outs = AttackOutputs(tmp_path / "r.parquet", tmp_path / "m.json", tmp_path / "c.csv")
    suite = {**SUITE, "attacks": [*SUITE["attacks"], entry]}
    settings: dict[str, Any] = {"bit_depth": 8, "seed": 0, "report": REPORT, "made_on": {"data": "d"}}
    attack_patients(model(), [one_group(splits())], suite, outs, **settings)
    assert read_metrics(outs.metrics) == {"not_fitted": reason, "made_on": {"data": "d"}}
    assert not len(read_table(outs.records))


def test_the_files_of_an_attack_on_patients(tmp_path: Path) -> None:
    data = splits(patients=12)
    patients = model(2)
    dropped = f"{sorted(set(data.subset('test').patients))[0]}_0"
    groups = [binary(group) for group in patient_groups(without(data, [dropped]), "test")]
    outs = AttackOutputs(tmp_path / "r.parquet", tmp_path / "m.json", tmp_path / "c.csv")
    attack_patients(patients, groups, SUITE, outs, bit_depth=8, seed=0, report=REPORT, made_on={"data": "d"})
    assert read_table(outs.records).attrs["made_on"] == {"data": "d"}
    record, curve = read_metrics(outs.metrics), read_table(outs.curve)
    assert record["n"] == record["patients"] == sum(len(group) for group in groups)
    assert list(record["robust_auroc"]) == ["0.01", "0.03"]
    assert record["robust_auroc"]["0.01"] >= record["robust_auroc"]["0.03"]
    low, high = record["robust_auroc_ci"]["0.03"]
    assert low <= record["robust_auroc"]["0.03"] <= high
    assert curve["eps"].tolist() == [0.01, 0.03]
    assert not list((tmp_path / "tmp").glob("**/*.parquet"))
