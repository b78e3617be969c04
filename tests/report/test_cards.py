"""Published folders: unchanged weights, and a card with the run's own numbers that the Hub can read."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from medrobust.core.calibration import fit_temperature
from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json, read_table, write_empty, write_json
from medrobust.models.card import weights_hash
from medrobust.models.use import Use, read_use
from medrobust.report.answers import read_answers
from medrobust.report.collect import collect, collect_ensemble
from medrobust.report.provenance import Provenance
from medrobust.report.publish.hub import HUB, licence_id
from medrobust.report.publish.model_cards import CHECKPOINT, PublishedModel, model_card, publish, publish_ensemble
from medrobust.report.publish.parts import Parts, Usage, operating_points
from medrobust.report.run import REGIMES, Run
from medrobust.report.scores import score_models
from tests.params import default_block, preset, save
from tests.report.pipeline import lock
from tests.report.runs import attack_record, card, checks_record, clean_record, folders, weights, write_record
from tests.report.test_external_tables import write_external
from tests.stages import run_stage

USE = Use.model_validate({
    "input": {"image_size": 8, "channels": 1, "window": None,
              "volume": {"range": [0, 1], "step": 1, "frame": None}},
    "slices": True, "temperature": 1.5, "patient_temperature": None, "ordered": True, "bootstrap": 200,
    "confidence": 0.95, "grid": 4,
})  # fmt: skip
PGD = SuiteParams(norm="Linf", eps=[0.005, 0.01], attacks=[{"name": "pgd", "steps": 10, "loss": "margin"}])


def backbone(folder: Path, suites: tuple[str, ...] = ("pgd",), *, checked: bool = True) -> Run:
    provenance = Provenance.of(folder / "dvc.lock") if checked else None
    return collect(folders(folder), ["one"], list(suites), provenance)


def published(run: Run, regime: str = "adv", folder: Path = Path("nowhere")) -> PublishedModel:
    data = folder / "data"
    table = f"one-{regime}.parquet"
    parts = Parts(
        data / "guards" / f"one-{regime}", data / "patients" / f"one-{regime}", data / "predictions" / table,
        data / "predictions" / "patients" / table,
    )  # fmt: skip
    usage = Usage(data / "prepared", default_block(DataParams, "data"), 4, 200, 0.95)
    return PublishedModel(run, "one", regime, dict.fromkeys(run.suites, PGD), 0.95, parts, usage)


def card_of(model: PublishedModel, points: Any = ()) -> str:
    return model_card(model, USE, list(points))


def front(text: str) -> dict[str, Any]:
    """The metadata, by a parser of YAML."""
    assert text.startswith("---\n")
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def rows(text: str, title: str) -> list[dict[str, str]]:
    """The rows of the table under a title."""
    lines = text.split(f"# {title}\n")[1].split("\n#", maxsplit=1)[0].splitlines()
    columns, _, *cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")
    ]
    return [dict(zip(columns, row, strict=True)) for row in cells]


def test_the_folder_has_the_weights_as_they_are_and_a_card(folder: Path) -> None:
    source, out = folder / "data" / "checkpoints" / "one" / "adv", folder / "models" / "one" / "adv"
    # As DVC links it to its cache, whose files are read-only.
    cached = folder / "cached"
    (source / "model.safetensors").rename(cached)
    cached.chmod(0o444)
    (source / "model.safetensors").symlink_to(cached)
    publish(published(backbone(folder), folder=folder), folders(folder), out)
    assert {path.name for path in out.iterdir()} == {
        *CHECKPOINT,
        "README.md",
        "patient",
        "suites.json",
        "use.json",
    }
    assert read_json(out / "patient" / "card.json")["patient"]["network"] == ".."
    assert read_json(out / "suites.json")["pgd"]["eps"] == [0.005, 0.01]
    for name in CHECKPOINT:
        assert (out / name).read_bytes() == (source / name).read_bytes()
    copy = out / "model.safetensors"
    assert not copy.is_symlink()
    copy.write_bytes(b"another")
    assert cached.read_bytes() == b"weights of one-adv"


def trusted(folder: Path) -> None:
    """Write an audit whose verdict is that nothing leaks."""
    write_record(folder / "metrics" / "audit.json", {"verdict": "clean", "reasons": []})
    lock(folder)


def test_the_hub_reads_the_card(folder: Path) -> None:
    trusted(folder)
    text = card_of(published(backbone(folder)))
    meta: Any = ModelCard(text).data
    assert meta.model_name == "one-adv"
    assert meta.pipeline_tag == "image-classification"
    assert meta.license == "mit"
    (index,) = front(text)["model-index"]
    (result,) = index["results"]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"type": "phantom", "name": "phantom", "split": "test"}
    assert {metric["type"] for metric in result["metrics"]} == set(front(text)["metrics"])
    found = {entry.metric_name: entry.metric_value for entry in meta.eval_results}
    clean, attacked = clean_record(), attack_record()["robust_accuracy"]
    assert found["accuracy (clean)"] == clean["accuracy"]
    assert found["balanced_accuracy (clean)"] == clean["balanced_accuracy"]
    assert "auroc (clean)" not in found  # which was not defined
    for eps, value in attacked.items():
        assert found[f"robust accuracy (pgd, Linf, eps {eps})"] == value


def test_the_numbers_are_those_of_the_records(folder: Path) -> None:
    text = card_of(published(backbone(folder)))
    (clean,) = rows(text, "Clean images")
    assert clean["accuracy"] == "0.712 [0.500, 0.900]"
    attacked, constant = rows(text, "Attack suite: pgd")
    assert attacked == {
        "": "one", "clean": "0.700", "ε = 0.005": "0.500 [0.400, 0.600]", "ε = 0.01": "0.250 [0.200, 0.300]",
        "checklist": "no problem found",
    }  # fmt: skip
    assert list(constant.values()) == ["constant answer", "0.333", "0.333", "0.333", "–"]
    assert [row["training"] for row in rows(text, "At a glance")] == ["clean", "adversarial", "constant answer"]
    counts = rows(text, "Confusion matrix, clean images")
    assert [row["Mild"] for row in counts] == ["0", "2", "0"]
    assert {row["images"] for row in rows(text, "All numbers")} == {"clean", "pgd", "constant answer"}


def test_the_card_explains_use_and_limits(folder: Path) -> None:
    write_record(folder / "metrics" / "checks" / "one-adv.json", checks_record("invalid"))
    lock(folder)
    text = card_of(published(backbone(folder)))
    for words in (
        'medrobust.load("models/one/adv")', "lr: 0.001", "Cite: A & B.", "a" * 64, "no medical device",
        "Norm Linf. Attacks: pgd (steps 10, loss margin).", "the split: **leaking**. 2 of 7 test patients are",
        "pgd **invalid**", "The licence in the metadata of this card is that of the images", "Licence: MIT.",
        f"those of the clean model (sha256 `{'b' * 64}`)", "torch 2.0",
    ):  # fmt: skip
        assert words in text, words
    (failed,) = rows(text, "Checks that did not pass")
    assert (failed["outcome"], failed["what to do"]) == ("fail", "raise restarts")
    assert "Missing in this card" not in text


def test_what_is_missing_is_named(folder: Path) -> None:
    for name in ("attack/one-adv-pgd.json", "checks/one-adv.json", "audit.json"):
        (folder / "metrics" / name).unlink()
    text = card_of(published(backbone(folder)))
    gaps = text.split("## Missing in this card")[1].split("##")[0]
    for name in ("attack/one-adv-pgd.json", "checks/one-adv.json", "audit.json"):
        assert f"- `{folder / 'metrics' / name}`: missing" in gaps
    assert "Audit of the split: **missing**" in text
    assert "pgd **unchecked**" in text
    assert not [row for row in rows(text, "Attack suite: pgd") if row["checklist"] != "–"]
    assert "robust accuracy (pgd" not in text


def test_what_must_not_be_compared_is_kept_from_the_hub(folder: Path) -> None:
    def named() -> list[str]:
        (index,) = front(card_of(published(backbone(folder))))["model-index"]
        return [metric["name"] for result in index["results"] for metric in result["metrics"]]

    assert named() == [], "the split leaks"
    trusted(folder)
    assert "robust accuracy (pgd, Linf, eps 0.01)" in named()
    write_record(folder / "metrics" / "checks" / "one-adv.json", checks_record("invalid"))
    lock(folder)
    assert named() == ["accuracy (clean)", "balanced_accuracy (clean)", "macro_f1 (clean)"]
    (folder / "metrics" / "checks" / "one-adv.json").unlink()
    assert "accuracy (clean)" in named()
    assert "robust accuracy (pgd, Linf, eps 0.01)" not in named()


def test_no_card_holds_numbers_of_another_run(folder: Path) -> None:
    record = {**attack_record(), "robust_accuracy": {"0.005": 0.8765, "0.01": 0.8765}}
    write_record(folder / "metrics" / "attack" / "one-adv-pgd.json", record)
    with pytest.raises(UserError, match=r"one-adv-pgd\.json: not what stage attack@one-adv-pgd wrote"):
        publish(published(backbone(folder), folder=folder), folders(folder), folder / "out")
    assert not (folder / "out").exists()


def test_the_path_of_local_weights_is_not_published(folder: Path) -> None:
    path = folder / "data" / "checkpoints" / "one" / "clean" / "card.json"
    found = read_json(path)
    found["params"]["model"] = {"weights": "/home/somebody/start.safetensors"}
    write_json(path, found)
    text = card_of(published(backbone(folder, checked=False), "clean"))
    assert "weights: start.safetensors" in text
    assert "somebody" not in text


def test_without_a_lock_the_card_states_that_nothing_was_checked(folder: Path) -> None:
    (folder / "dvc.lock").unlink()
    assert "there is no dvc.lock to compare the results with" in card_of(published(backbone(folder)))


def test_a_suite_without_any_result_leaves_its_name(folder: Path) -> None:
    text = card_of(published(backbone(folder, ("pgd", "new"))))
    assert [list(row.values()) for row in rows(text, "Attack suite: new")] == [
        ["one", "missing", "–"],
        ["constant answer", "0.333", "–"],
    ]
    assert f"`{folder / 'metrics' / 'attack' / 'one-clean-new.json'}`: missing" in text


def test_a_suite_with_targets_has_a_table_of_their_success(folder: Path) -> None:
    targeted = {"targeted_n": {"least": 12}, "targeted_success": {"least": {"0.005": 0.25, "0.01": 0.75}}}
    targeted["targeted_success_ci"] = {"least": {"0.005": [0.1, 0.4], "0.01": [0.6, 0.9]}}
    write_record(folder / "metrics" / "attack" / "one-adv-pgd.json", attack_record() | targeted)
    lock(folder)
    run = backbone(folder)
    (row,) = rows(card_of(published(run)), "Targeted success: pgd")
    assert (row["target"], row["n"], row["ε = 0.01"]) == ("least", "12", "0.750 [0.600, 0.900]")
    assert "Targeted success" not in card_of(published(run, "clean"))


def test_without_data_and_results_there_still_is_a_card(folder: Path) -> None:
    for name in ("metrics", "plots", "data/prepared", "data/tune"):
        shutil.rmtree(folder / name)
    text = card_of(published(backbone(folder)))
    assert "No record of the data was found." in text
    assert not front(text)["model-index"][0]["results"]
    assert "license" not in front(text)
    assert isinstance(ModelCard(text), ModelCard)


@pytest.mark.parametrize("name", CHECKPOINT)
def test_missing_weights_are_not_published(folder: Path, name: str) -> None:
    (folder / "data" / "checkpoints" / "one" / "adv" / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: no such file\. Run `dvc repro`"):
        publish(published(backbone(folder), folder=folder), folders(folder), folder / "out")
    assert not (folder / "out").exists()


def test_weights_of_another_run_are_not_published(folder: Path) -> None:
    checkpoint = folder / "data" / "checkpoints" / "one" / "adv"
    write_json(checkpoint / "card.json", {**card("one", "adv"), "seed": 2})
    with pytest.raises(UserError, match=r"card\.json: not what stage train@one-adv wrote"):
        publish(published(backbone(folder), folder=folder), folders(folder), folder / "out")


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC BY 4.0", "cc-by-4.0"), ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"), ("MIT", "mit"), ("CC0 1.0", "cc0-1.0"),
        ("see its page", None), ("unknown", None), ("", None), ("mit and others", None),
    ],
)  # fmt: skip
def test_a_licence_has_the_hubs_name_or_none(licence: str, expected: str | None) -> None:
    assert licence_id(licence) == expected


def test_a_data_set_of_the_hub_is_linked(folder: Path) -> None:
    trusted(folder)
    path = folder / "data" / "prepared" / "header.json"
    write_json(path, {**read_json(path), "url": f"{HUB}owner/images", "licence": "see its page"})
    text = card_of(published(backbone(folder, checked=False)))
    assert front(text)["datasets"] == ["owner/images"]
    assert front(text)["model-index"][0]["results"][0]["dataset"]["type"] == "owner/images"
    assert "The metadata of this card have no licence" in text


def test_data_without_patient_ids_are_not_of_no_patients(folder: Path) -> None:
    path = folder / "data" / "prepared" / "header.json"
    write_json(path, {**read_json(path), "patients": 0})
    assert "12 images without patient ids, 8 pixels." in card_of(published(backbone(folder, checked=False)))


def test_the_stage_writes_both_models(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = preset("smoke")
    params |= {"seed": 1, "adv": {**params["adv"], "eps": 0.01}}
    params["attacks"]["suites"] = {"pgd": params["attacks"]["suites"]["pgd"]}
    params["detect"]["suites"] = {"pgd": 0.01}
    save(folder, params)
    monkeypatch.chdir(folder)
    write_empty(*(Path("metrics", "corrupt", f"one-{regime}.json") for regime in REGIMES))
    write_external(folder)
    lock(folder)
    run_stage(root, monkeypatch, "publish", backbone="one")
    for regime in REGIMES:
        text = Path("models", "one", regime, "README.md").read_text()
        assert front(text)["model-index"][0]["name"] == f"one-{regime}"
        assert "0.250 [0.200, 0.300]" in text
        assert "Missing in this card" not in text
        assert "### External data: b" in text
        assert "| balanced accuracy | 0.600 [0.500, 0.900] | 0.500 [0.400, 0.600] | -0.100 [" in text
        assert ("External data: far" in text) == (regime == "adv")
        by_patient = rows(text, "Results by patient")
        assert by_patient[0]["AUROC"] == "0.850 [0.700, 0.950]"
        assert by_patient[-1][""] == "constant answer", "the note compares with it"
        assert re.search(r"\| AUROC \| 0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\] \|", text), "the model's own AUROC"


def test_the_interval_of_auroc_is_that_of_the_predictions(folder: Path) -> None:
    record = {**clean_record(), "auroc": 0.8}
    write_record(folder / "metrics" / "train" / "one-adv.json", record)
    run = backbone(folder, checked=False)
    read_answers(run, folders(folder))
    score_models(run, resamples=50, confidence=0.95)
    low, high = next(each for each in run.scored["one", "adv"] if each.images == "clean").auroc_ci or (0, 0)
    for title in ("Clean images", "All numbers"):
        assert rows(card_of(published(run)), title)[0]["AUROC"] == f"0.800 [{low:.3f}, {high:.3f}]"


def test_settings_that_no_search_chose_are_called_so(folder: Path) -> None:
    assert "Hyper-parameters that the search chose" in card_of(published(backbone(folder)))
    write_record(folder / "metrics" / "tune" / "one.json", {"trials": 0, "pruned": 0})
    text = card_of(published(backbone(folder, checked=False)))
    assert "Hyper-parameters, without a search of their own" in text
    assert "the search chose" not in text


def test_the_command_names_a_suite_that_the_folder_has(folder: Path) -> None:
    moved = SuiteParams(norm="Linf", eps=[0.01], attacks=[{"name": "transfer", "source": "two-clean"}])
    model = published(backbone(folder, ("new", "pgd")))
    text = card_of(replace(model, suites={"new": moved, "pgd": PGD}))
    assert "IMAGE.png --suite pgd " in text
    assert "medrobust attack" not in card_of(replace(model, suites={"new": moved, "pgd": moved}))


def guarded(folder: Path, fitted_to: str) -> Path:
    """A guard with one detector, and the record of its false alarms on test images."""
    guard = folder / "data" / "guards" / "one-adv"
    detectors = {"gmm": {"settings": {}, "threshold": 3.25, "middle": 0, "spread": 1}}
    facts = {"temperature": 2.0, "fpr": 0.05, "model": fitted_to, "detectors": detectors}
    write_json(guard / "card.json", facts)
    (guard / "detectors.safetensors").write_bytes(b"detectors")
    row = {"test_fpr": 0.125, "test_fpr_ci": [0.05, 0.25]}
    write_record(folder / "metrics" / "detect" / "one-adv.json", {"suites": {"pgd": {"eps": 0.01, "gmm": row}}})
    return guard


def test_the_guard_travels_and_the_card_names_its_measured_false_alarms(folder: Path) -> None:
    guard = guarded(folder, weights("one-adv"))
    run = backbone(folder, checked=False)
    publish(published(run, folder=folder), folders(folder), folder / "out")
    assert (folder / "out" / "guard" / "detectors.safetensors").read_bytes() == b"detectors"
    assert read_json(folder / "out" / "guard" / "card.json") == read_json(guard / "card.json")
    text = (folder / "out" / "README.md").read_text()
    assert "the score of `gmm` is above 3.25, which 5% of clean validation images exceed" in text
    assert "measured on clean test images: 12.5 % [5.0, 25.0], a 95% interval over patients" in text
    assert "medrobust predict models/one/adv IMAGE.png" in text
    assert "medrobust export models/one/adv OUT" in text
    assert "resized to 64×64 pixels exactly as the training data were" in text
    use = read_use(folder / "out")
    assert use is not None
    assert (use.slices, use.input.channels) == (True, 1)
    written = read_json(folder / "out" / "use.json")["input"]
    assert (written["resampling"], written["fit"]) == ("bilinear", "squash")
    for temperature, folder_of in ((use.temperature, ""), (use.patient_temperature, "patients")):
        table = read_table(folder / "data" / "predictions" / folder_of / "one-adv.parquet")
        val = table[table["split"] == "val"]
        logprobs = val[[f"logprob_{k}" for k in range(3)]].to_numpy()
        assert temperature == fit_temperature(logprobs, val["label"].to_numpy())


def test_without_a_guard_the_card_says_that_no_image_is_rejected(folder: Path) -> None:
    text = card_of(published(backbone(folder)))
    assert "This model has no guard" in text
    assert not operating_points(backbone(folder), folder / "metrics", ("one", "adv"), folder / "none")


def test_false_alarms_of_another_run_are_missing(folder: Path) -> None:
    guard = guarded(folder, weights("one-adv"))
    path = folder / "metrics" / "detect" / "one-adv.json"
    content = read_json(path)
    content["details"][0][MADE_ON]["weights"] = "c" * 64
    write_json(path, content)
    (point,) = operating_points(backbone(folder, checked=False), folder / "metrics", ("one", "adv"), guard)
    assert point["rate"] is None
    assert "measured on clean test images: missing." in card_of(published(backbone(folder)), [point])


def test_a_part_of_another_model_is_not_published(folder: Path) -> None:
    run = backbone(folder, checked=False)
    guarded(folder, "c" * 64)
    with pytest.raises(UserError, match="one-adv: was fitted to other weights than this model's"):
        publish(published(run, folder=folder), folders(folder), folder / "out")
    shutil.rmtree(folder / "data" / "guards" / "one-adv")
    path = folder / "data" / "patients" / "one-adv" / "card.json"
    write_json(path, {**read_json(path), "sha256": "c" * 64})
    with pytest.raises(UserError, match="one-adv: was fitted to other weights than this model's"):
        publish(published(run, folder=folder), folders(folder), folder / "out")
    write_json(path, {"patient": None, "not_fitted": "no ids", "sha256": "c" * 64})
    publish(published(run, folder=folder), folders(folder), folder / "out")
    assert not (folder / "out" / "patient").exists()


def test_an_ensemble_is_published_with_its_members_under_the_same_hash(folder: Path) -> None:
    source, out = folder / "data" / "ensemble", folder / "out"
    rows = {
        name: {"folder": f"../checkpoints/{name.replace('-', '/')}", "sha256": weights(name), "votes": True}
        for name in ("one-adv", "two-adv")
    }
    facts = {"method": "convex", "regime": "adv", "fitted_on": "convex ensemble", "temperature": 0.5}
    write_json(source / "card.json", {**facts, "members": rows, "rule": {"weights": [0.5, 0.5]}})
    run = collect_ensemble(folders(folder), ["pgd"], "adv", None)
    model = published(run, folder=folder)
    model = PublishedModel(run, "ensemble", "adv", model.suites, 0.95, Parts(folder / "none"), model.usage)
    publish_ensemble(model, source, folders(folder), out)
    assert weights_hash(out) == weights_hash(source)
    for name, row in read_json(out / "card.json")["members"].items():
        assert (out / row["folder"] / "model.safetensors").read_bytes() == f"weights of {name}".encode()
    use = read_use(out)
    assert use is not None
    assert use.temperature == 0.5
    text = (out / "README.md").read_text()
    assert "medrobust predict models/ensemble/adv IMAGE.png" in text
    assert rows_of_suite(text) == ["0.500 [0.400, 0.600]", "0.250 [0.200, 0.300]"]
    (folder / "data" / "checkpoints" / "two" / "adv" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        publish_ensemble(model, source, folders(folder), out)


def rows_of_suite(text: str) -> list[str]:
    row = rows(text, "Attack suite: pgd")[0]
    return [row["ε = 0.005"], row["ε = 0.01"]]


def test_the_stage_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, medrobust.report.publish.model_cards, medrobust.core.params.schema; "
        "assert not {'torch', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
