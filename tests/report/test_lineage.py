"""A number stands in the report only if dvc.lock says that it belongs to this run."""

import threading
import time
from pathlib import Path

import pytest
import yaml

from medrobust.core.records import write_json
from medrobust.report.page.page import render_html, verdicts
from medrobust.report.provenance.lineage import Lineage, cells, md5
from tests.report.runs import SETTINGS, attack_record, card, clean_record, lock, read, write_record


def test_a_finished_run_has_no_doubts(folder: Path) -> None:
    run = read(folder, checked=True)
    assert run.foreign == {}
    assert run.missing == []
    assert [card["of"] for card in verdicts(run)] == ["Audit of the split", "Checklist of the attacks"]


def test_a_metric_that_its_stage_did_not_write_is_left_out(folder: Path) -> None:
    write_record(folder / "metrics" / "train" / "one-clean.json", clean_record(0.9876))
    run = read(folder, checked=True)
    assert list(run.foreign) == [str(folder / "metrics" / "train" / "one-clean.json")]
    assert "train@one-clean" in next(iter(run.foreign.values()))
    assert "0.988" not in render_html(run, {}, SETTINGS)
    assert verdicts(run)[-1]["tone"] == "bad"


def test_an_interrupted_stage_leaves_no_number(folder: Path) -> None:
    """It wrote its metrics and then failed: dvc.lock still speaks of the earlier ones."""
    write_record(folder / "metrics" / "attack" / "one-adv-pgd.json", {**attack_record(), "seconds": 2.0})
    run = read(folder, checked=True)
    assert ("one", "adv", "pgd") not in run.attack
    assert ("one", "clean", "pgd") in run.attack


def test_an_attack_on_an_earlier_model_is_left_out(folder: Path) -> None:
    """The model was trained anew on its own (`dvc repro -s`); its attacks and the ensemble were not run again."""
    before = (folder / "dvc.lock").read_text()
    model = folder / "data" / "checkpoints" / "one" / "adv"
    old = md5(model)
    write_json(model / "card.json", {**card("one", "adv"), "sha256": "c" * 64})
    new = md5(model)
    train, rest = before.split("  train@one-adv:")
    (folder / "dvc.lock").write_text(train + "  train@one-adv:" + rest.replace(str(old), str(new), 1))
    run = read(folder, checked=True)
    assert run.train["one", "adv"] != {}
    assert {key[:2] for key in run.attack} == {
        ("one", "clean"),
        ("two", "clean"),
        ("two", "adv"),
        ("ensemble", "adv"),
    }
    assert run.ensemble == {}
    assert any("ran on an earlier data/checkpoints/one/adv" in reason for reason in run.foreign.values())
    # What read the whole folder of models, of which dvc.lock has no hash.
    assert run.transfer == {}
    assert "stage transfer ran on an earlier data/checkpoints" in run.foreign.values()


def test_a_changed_value_of_params_doubts_all_that_stands_on_it(folder: Path) -> None:
    (folder / "params.yaml").write_text("seed: 1\nadv: {eps: 0.02}\n")
    run = read(folder, checked=True)
    assert run.train["one", "clean"] != {}
    assert run.train["one", "adv"] == {}
    assert {key[1] for key in run.attack if key[0] != "ensemble"} == {"clean"}
    assert run.ensemble == {}
    assert "adv.eps in params.yaml has changed since stage train@one-adv ran" in run.foreign.values()


def test_numbers_of_other_code_are_left_out(folder: Path) -> None:
    """The page names the commit whose code made it: an edit whose stages have not run yet is not that code."""
    loop = folder / "src" / "training" / "loop.py"
    (loop.parent / "__pycache__").mkdir()
    (loop.parent / "__pycache__" / "loop.pyc").write_text("compiled")
    assert read(folder, checked=True).foreign == {}
    loop.write_text("epochs = 4\n")
    run = read(folder, checked=True)
    assert run.train["one", "clean"] == {}
    assert {key[0] for key in run.attack} == {"ensemble"}
    assert "stage train@one-clean ran on an earlier src/training" in run.foreign.values()


def test_a_changed_seed_doubts_everything(folder: Path) -> None:
    (folder / "params.yaml").write_text("seed: 2\nadv: {eps: 0.01}\n")
    run = read(folder, checked=True)
    assert not run.header
    assert not run.attack
    assert "No prepared data of this run" in render_html(run, {}, SETTINGS)


def test_a_number_that_dvc_writes_as_text_is_the_same_number(folder: Path) -> None:
    (folder / "dvc.lock").write_text((folder / "dvc.lock").read_text().replace("adv.eps: 0.01", "adv.eps: 1e-02"))
    assert read(folder, checked=True).foreign == {}


def test_a_file_that_no_stage_wrote_is_left_out(folder: Path) -> None:
    lineage = Lineage.of(folder / "dvc.lock", "report")
    assert lineage is not None
    assert lineage.doubt(folder / "metrics" / "stray.json") == "no stage of dvc.lock wrote it"


def test_a_file_that_dvc_linked_from_its_cache_is_of_the_run(folder: Path) -> None:
    for path in (folder / "data" / "checkpoints" / "one" / "adv" / "card.json", folder / "metrics" / "audit.json"):
        cached = folder / ".dvc" / "cache" / path.name
        cached.parent.mkdir(parents=True, exist_ok=True)
        path.rename(cached)
        path.symlink_to(cached)
    run = read(folder, checked=True)
    assert run.foreign == {}
    assert run.cards["one", "adv"] != {}


def test_what_the_report_itself_read_the_last_time_is_no_evidence(folder: Path) -> None:
    """Its own entry may be older than the run that it is to show."""
    text = (folder / "dvc.lock").read_text()
    entry = "  report:\n    deps: [{path: metrics/audit.json, md5: old}]\n    outs: []\n"
    (folder / "dvc.lock").write_text(text.replace("stages:\n", "stages:\n" + entry))
    assert read(folder, checked=True).foreign == {}


def test_stages_that_are_gone_do_not_matter(folder: Path) -> None:
    """dvc.lock keeps their entries, also of an out that another stage writes now."""
    text = (folder / "dvc.lock").read_text()
    gone = (
        "  gone:\n    deps: [{path: data/prepared/header.json, md5: old}]\n"
        "    outs: [{path: data/checkpoints/one/adv, md5: old}, {path: metrics/audit.json, md5: old}]\n"
    )
    (folder / "dvc.lock").write_text(text + gone)
    assert read(folder, checked=True).foreign == {}


def test_without_a_lock_the_page_says_that_nothing_was_checked(folder: Path) -> None:
    (folder / "dvc.lock").unlink()
    run = read(folder, checked=True)
    assert run.missing == []
    assert verdicts(run)[-1]["verdict"] == "not checked"


def test_folders_hash_as_dvc_hashes_them(tmp_path: Path) -> None:
    hashing = pytest.importorskip("dvc_data.hashfile.build")
    local = pytest.importorskip("dvc_objects.fs.local").LocalFileSystem

    for name in ("b.txt", "a/c.txt", "a.txt"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text(name)
    database = pytest.importorskip("dvc_data.hashfile.db").HashFileDB(local(), str(tmp_path / "db"))
    _, _, found = hashing.build(database, str(tmp_path / "x"), local(), "md5", dry_run=True)
    assert md5(tmp_path / "x") == found.hash_info.value


def test_the_lock_of_the_tests_is_rewritten_with_the_files(folder: Path) -> None:
    write_record(folder / "metrics" / "train" / "one-clean.json", clean_record(0.9876))
    lock(folder)
    assert "0.988" in render_html(read(folder, checked=True), {}, SETTINGS)


def test_a_suite_that_was_taken_out_of_params_casts_no_doubt(tmp_path: Path) -> None:
    """dvc.lock keeps its entry, and its file still lies in the folder that the checks depend on."""
    suites = tmp_path / "data" / "suites"
    for name in ("old", "pgd"):
        write_json(suites / f"{name}.json", {"name": name})
    write_json(tmp_path / "check.json", {"verdict": "sound"})
    entries = {
        f"suite@{name}": {
            "params": {"params.yaml": {f"attacks.suites.{name}": {"eps": 1}}},
            "outs": [{"path": f"data/suites/{name}.json", "md5": md5(suites / f"{name}.json")}],
        }
        for name in ("old", "pgd")
    }
    check = {
        "deps": [{"path": "data/suites", "md5": md5(suites)}],
        "outs": [{"path": "check.json", "md5": md5(tmp_path / "check.json")}],
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {**entries, "check": check}}))
    (tmp_path / "dvc.yaml").write_text("stages: {suite: {matrix: {suite: '${attacks.suites}'}}, check: {cmd: x}}")
    (tmp_path / "params.yaml").write_text("attacks: {suites: {pgd: {eps: 1}}}")
    lineage = Lineage.of(tmp_path / "dvc.lock", "report")
    assert lineage is not None
    assert lineage.doubt(tmp_path / "check.json") is None
    assert lineage.doubt(suites / "old.json") == "no stage of dvc.lock wrote it"


def test_the_cells_are_those_that_dvc_sees(root: Path) -> None:
    """Against DVC's own reading of dvc.yaml."""
    from dvc.repo import Repo

    assert cells(root) == {stage.name for stage in Repo(str(root)).index.stages}


def test_a_lock_that_dvc_is_writing_is_read_when_it_is_whole(folder: Path) -> None:
    """Stages that run side by side: DVC writes dvc.lock in place, and holds its own lock meanwhile."""
    from dvc.lock import Lock

    text, guard = (folder / "dvc.lock").read_text(), folder / ".dvc" / "tmp" / "lock"
    guard.parent.mkdir(parents=True)
    half = text.index("  attack@two-adv-pgd:")
    writing = threading.Event()

    def write() -> None:
        with Lock(str(guard)):
            (folder / "dvc.lock").write_text(text[:half])
            writing.set()
            time.sleep(0.2)
            (folder / "dvc.lock").write_text(text)

    writer = threading.Thread(target=write)
    writer.start()
    writing.wait()
    lineage = Lineage.of(folder / "dvc.lock", "report")
    writer.join()
    assert lineage is not None
    assert set(lineage.stages) == set(yaml.safe_load(text)["stages"])
