"""Every attack resolves in a suite and runs in the engine, and the documented suites are valid."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import nn

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite, evaluate_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.registry import ATTACKS
from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.data.store import Subset
from tests.attacks.conftest import QUICK
from tests.attacks.test_contract import CASES

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8"), re.DOTALL)
DOCUMENTED: dict[str, Any] = {name: suite for block in BLOCKS for name, suite in yaml.safe_load(block).items()}
SOURCE = {"source": "data/checkpoints/a/clean", "sha256": "0" * 64}
#: Hyper-parameters without a default.
NEEDED: dict[str, Any] = {"transfer": SOURCE, "torchattacks": {"attack": "APGD"}}


def resolved(norm: str, eps: list[float], *attacks: dict[str, Any]) -> dict[str, Any]:
    return resolve_suite("s", SuiteParams(norm=norm, eps=eps, attacks=list(attacks)))


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_suite_resolves(name: str) -> None:
    suite = resolve_suite(name, SuiteParams(**DOCUMENTED[name]))
    assert suite["attacks"]


def test_the_documented_attacks_are_the_registered_ones() -> None:
    text = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    table = text.partition("| name |")[2].partition("\n\n")[0]
    names = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert names == set(ATTACKS)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_defaults_of_an_attack_are_accepted(name: str, norm: str) -> None:
    suite = resolved(norm, [0.01, 0.02], {"name": name, **NEEDED.get(name, {})})
    assert suite["norm"] == norm


def test_a_transfer_depends_on_the_code_of_its_inner_attack() -> None:
    spec = {"name": "transfer", **SOURCE, "attack": {"name": "bim"}}
    code = {f"attacks/{name}": name for name in ("apgd", "bim", "transfer")}
    found = resolve_suite("s", SuiteParams(norm="Linf", eps=[0.1], attacks=[spec]), code)["code"]
    assert found == {"attacks/bim": "bim", "attacks/transfer": "transfer"}


def test_a_transfer_depends_on_the_code_of_the_attack_that_it_runs_by_default() -> None:
    code = {f"attacks/{name}": name for name in ATTACKS}
    suite = SuiteParams(norm="Linf", eps=[0.1], attacks=[{"name": "transfer", **SOURCE}])
    assert set(resolve_suite("s", suite, code)["code"]) == {"attacks/iterative", "attacks/transfer"}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_unknown_hyper_parameter_is_refused_with_the_known_ones(name: str) -> None:
    norm = next(norm for attack, norm in CASES if attack == name)
    with pytest.raises(UserError, match=rf"{name}\.magic: unknown hyper-parameter\. Known: ") as caught:
        resolved(norm, [0.01], {"name": name, "magic": 1, **NEEDED.get(name, {})})
    known = caught.value.remedy.removeprefix("Known: ").split(", ")
    assert not {"eps", "norm", "train", "fitted"} & set(known)


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if case[0] != "transfer"])
def test_every_attack_runs_in_the_engine(name: str, norm: str, trained: nn.Module, subset: Subset) -> None:
    """The records are the same in batches of 64 and of 7."""
    radii = [0.5, 2.0] if norm == "L2" else [0.05, 0.2]
    suite = resolved(norm, radii, {"name": name, **QUICK.get(name, {})})
    tables = [attack_suite(trained, subset, suite, seed=0, batch_size=size, train=subset) for size in (64, 7)]
    worst = [worst_case(table, radii) for table in tables]
    assert (worst[0]["fooled"] == worst[1]["fooled"]).mean() > 0.98, "float32 in batches of another size"
    counted = tables[0][tables[0]["attack"] == name]
    assert len(counted)
    assert (counted["distance"] <= counted["eps"] * (1 + 1e-5) + 1e-6).all()
    assert ((counted["gradients"] + counted["queries"]) > 0).all()


def test_a_targeted_attack_and_a_region_work_in_a_suite(trained: nn.Module, subset: Subset) -> None:
    settings = {"name": "cw_pgd", "steps": 10, "random_start": False}
    whole = evaluate_suite(trained, subset, resolved("Linf", [0.2], settings), seed=0)
    down = evaluate_suite(trained, subset, resolved("Linf", [0.2], {**settings, "target": "next_down"}), seed=0)
    part = evaluate_suite(trained, subset, resolved("Linf", [0.2], {**settings, "mask": "foreground"}), seed=0)
    lowest = down[(down["label"] == 0) & (down["fooled_by"] != "natural")]
    assert not lowest["fooled"].any(), "the lowest grade has no grade below"
    hit = down[down["fooled"] & (down["fooled_by"] != "natural")]
    assert (hit["adv_pred"] < hit["label"]).mean() > 0.5
    assert down["fooled"].sum() <= whole["fooled"].sum()
    assert part["fooled"].sum() <= whole["fooled"].sum()


def test_masks_of_the_publisher_confine_an_attack(trained: nn.Module, subset: Subset) -> None:
    """Each image has its own mask, whatever batch it is in. Without masks the suite is refused."""
    suite = resolved("Linf", [0.3], {"name": "cw_pgd", "mask": "outlined", "random_start": False})
    with pytest.raises(UserError, match=r"no masks\.npy"):
        evaluate_suite(trained, subset, suite, seed=0)
    masks = np.zeros((40, 12, 12), dtype=bool)
    masks[:20] = True  # the first half everywhere, the others nowhere
    outlined = replace(subset, store_masks=masks)
    for size in (40, 7):
        table = evaluate_suite(trained, outlined, suite, seed=0, batch_size=size)
        attacked = table[table["fooled_by"] != "natural"].set_index("id")["distance"]
        moved = {name for name, away in attacked.items() if away > 0}
        assert moved == set(subset.ids[:20]) & set(attacked.index)
    assert outlined.masks([25, 3]).flatten(1).all(1).tolist() == [False, True]


def test_a_universal_pattern_needs_training_images(trained: nn.Module, subset: Subset) -> None:
    suite = resolved("Linf", [0.1, 0.3], {"name": "universal"})
    with pytest.raises(UserError, match="no training images"):
        evaluate_suite(trained, subset, suite, seed=0)
    table = attack_suite(trained, subset, suite, seed=0, train=subset)
    assert np.isfinite(table[table["attack"] == "universal"]["margin"]).all()
