"""What a model folder says of the training of its model."""

from pathlib import Path

from medrobust.core.records import write_json
from medrobust.models.card import adversarial_trainings


def test_the_trainings_of_a_model_and_of_the_members_of_an_ensemble(tmp_path: Path) -> None:
    blocks = [{"eps": 0.2, "alpha": 1e-4}, {"eps": 0.01, "alpha": "auto"}]
    for name, block in zip(("one", "two"), blocks, strict=True):
        write_json(tmp_path / name / "card.json", {"params": {"adv": block}})
    write_json(tmp_path / "clean" / "card.json", {"params": {"train": {}}})
    rows = {name: {"folder": f"../{name}"} for name in ("one", "two", "clean")}
    write_json(tmp_path / "ensemble" / "card.json", {"members": rows})
    write_json(tmp_path / "none" / "card.json", {"not_fitted": "too few images"})
    assert adversarial_trainings(tmp_path / "one") == blocks[:1]
    assert adversarial_trainings(tmp_path / "ensemble") == blocks
    assert adversarial_trainings(tmp_path / "clean") == adversarial_trainings(tmp_path / "none") == []
