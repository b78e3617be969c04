"""The paired test: whole patients as the unit, the same images on both sides."""

import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from medrobust.attacks.engine.attempts import table_of
from medrobust.core.records import write_table
from tools.comment.compare import Measure
from tools.comment.paired import fetcher, p_value


def predictions(correct: list[int], patients: list[str], labels: list[int] | None = None) -> pd.DataFrame:
    label = np.array(labels or [0] * len(correct))
    pred = np.where(correct, label, label + 1)
    rows = {"id": [f"i{n}" for n in range(len(correct))], "split": "test", "patient": patients, "label": label}
    return pd.DataFrame({**rows, "pred": pred})


def test_balanced_accuracy_weighs_classes_alike() -> None:
    # 1 image of class 1 got better, 2 of the 4 images of class 0 worse: +1 against 2 * 1/4.
    patients, labels = list("abcde"), [0, 0, 0, 0, 1]
    base = predictions([1, 1, 1, 1, 0], patients, labels)
    this = predictions([1, 1, 0, 0, 1], patients, labels)
    found = p_value(Measure("net-adv"), lambda path: base, lambda path: this)
    gains = (-0.25, -0.25, 1)
    assert found == np.mean([abs(np.dot(signs, gains)) >= 0.5 for signs in product((-1, 1), repeat=3)])


def test_only_the_same_test_images_are_paired() -> None:
    base = predictions([1, 0], ["a", "b"])
    other = base.assign(id=["i0", "x"])
    assert p_value(Measure("net-adv"), lambda path: base, lambda path: other) is None
    assert p_value(Measure("net-adv"), lambda path: base, lambda path: None) is None
    validation = pd.concat([base, other.assign(split="val", id=["v0", "v1"])])
    assert p_value(Measure("net-adv"), lambda path: base, lambda path: validation) == 1


def test_under_attack_the_worst_case_at_the_radius_counts() -> None:
    def attempts(distances: list[float]) -> pd.DataFrame:
        counts = dict.fromkeys(("label", "clean_pred", "steps", "gradients", "queries"), 0)
        rest = {**counts, "saturation": 0.0, "displacement": 0.0}
        rows = []
        for n, distance in enumerate(distances):
            image = {"id": f"i{n}", "patient": f"p{n}", **rest}
            clean = {"attack": "natural", "eps": 0.0, "fooled": False, "pred": 0, "margin": -1.0, "distance": 0.0}
            hit = {"attack": "pgd", "eps": 0.02, "fooled": True, "pred": 1, "margin": 1.0, "distance": distance}
            rows += [image | clean, image | hit]
        return table_of(rows)

    paths = []

    def fetch(path: str) -> pd.DataFrame:
        paths.append(path)
        return attempts([0.01] * 5)

    measure = Measure("net-adv", "pgd", "0.01")
    assert p_value(measure, fetch, lambda path: attempts([0.02] * 5)) == 2 / 2**5
    assert p_value(measure._replace(eps="0.02"), fetch, lambda path: attempts([0.02] * 5)) == 1
    assert paths[0] == "data/attacks/net-adv/pgd.parquet"
    base = predictions([1], ["a"])
    p_value(Measure("ensemble-adv"), lambda path: paths.append(path) or base, lambda path: base)  # type: ignore[func-returns-value]
    assert paths[-1] == "data/predictions/ensemble.parquet"


def test_records_in_the_working_tree_are_read_and_missing_ones_are_none(tmp_path: Path) -> None:
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    table = predictions([1, 0], ["a", "b"])
    write_table(tmp_path / "data" / "a.parquet", table)
    fetch = fetcher(tmp_path, None)
    pd.testing.assert_frame_equal(fetch("data/a.parquet"), table)  # type: ignore[arg-type]
    assert fetch("data/b.parquet") is None
