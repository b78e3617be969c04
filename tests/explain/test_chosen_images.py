"""Images are chosen by rule, ties by id."""

import numpy as np
import pandas as pd

from medrobust.attacks.engine.attempts import table_of
from medrobust.explain.chosen_images import ChosenImage, choose_images, strongest_attacks


def predictions() -> pd.DataFrame:
    chances = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    return pd.DataFrame({
        "id": ["b", "a", "c", "e", "d"], "label": [0, 0, 0, 0, 0], "pred": chances.argmax(1),
        "logprob_0": np.log(chances[:, 0]), "logprob_1": np.log(chances[:, 1]),
    })  # fmt: skip


def worst() -> pd.DataFrame:
    rows = [
        ("e", True, "natural", 0.0), ("d", True, "natural", 0.0), ("c", True, "pgd", 0.01),
        ("b", True, "pgd", 0.01),
        ("a", True, "pgd", 0.02), ("f", False, "", np.nan),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["id", "fooled", "fooled_by", "fooled_at"])
    return pd.concat([table.assign(eps=eps) for eps in (0.01, 0.02)], ignore_index=True)


def test_rules_and_ties() -> None:
    assert choose_images(predictions(), worst(), 1, 0.02) == [
        ChosenImage("right", 1, "a", 0.02), ChosenImage("wrong", 1, "e", 0.02), ChosenImage("fooled", 1, "b", 0.01)
    ]  # fmt: skip
    two = choose_images(predictions(), worst(), 2, 0.02)
    assert [choice.id for choice in two] == ["a", "b", "e", "d", "b", "c"]
    assert [choice.number for choice in two] == [1, 2] * 3


def test_a_rule_without_an_image_chooses_none() -> None:
    right = predictions().assign(label=[0, 0, 0, 1, 1])
    calm = worst().assign(fooled=False)
    assert [choice.rule for choice in choose_images(right, calm, 1, 0.02)] == ["right"]
    wrong = predictions().assign(label=[1, 1, 1, 0, 0])
    assert [choice.rule for choice in choose_images(wrong, calm, 1, 0.02)] == ["wrong"]


def attempt(name: str, attack: str, eps: float, fooled: bool, margin: float) -> dict[str, object]:
    zero = {"label": 0, "clean_pred": 0, "pred": 1, "distance": eps, "saturation": 0.0, "displacement": 0.0}
    counts = {"steps": 1, "gradients": 1, "queries": 0}
    facts = {"id": name, "patient": "p", "attack": attack, "eps": eps, "fooled": fooled, "margin": margin}
    return {**facts, **zero, **counts}


def test_the_strongest_attack_is_the_one_on_record() -> None:
    attempts = table_of([
        attempt("a", "natural", 0.0, False, -3.0), attempt("a", "one", 0.02, True, 2.0),
        attempt("a", "two", 0.01, True, 0.1), attempt("a", "stored", 0.01, True, 9.0),
        attempt("b", "one", 0.02, False, -1.0), attempt("b", "two", 0.02, False, -0.5),
        attempt("c", "natural", 0.0, True, 1.0), attempt("x", "one", 0.01, True, 1.0),
    ])  # fmt: skip
    ids = np.array(["a", "b", "c"])
    assert strongest_attacks(attempts, ids, 0.02) == {"a": "one", "b": "two"}
    assert strongest_attacks(attempts, ids, 0.01) == {"a": "two", "b": "two"}
    assert strongest_attacks(attempts, ids, 0.005)["a"] == "one", "what came nearest at a larger radius"
