"""A number is in the report only if DVC's comparison with dvc.lock shows that it belongs to this run."""

import shutil
import threading
import time
from pathlib import Path

import pytest
import yaml

from medrobust.core.records import file_hash, write_json
from medrobust.report.page.render import page_content, render_html
from medrobust.report.page.verdicts import verdicts
from medrobust.report.provenance import Provenance, folder_md5
from tests.report.pipeline import lock, write_repository
from tests.report.runs import SETTINGS, attack_record, card, clean_record, read, write_record


def reason(folder: Path, name: str) -> str | None:
    """Why a file does not belong to the run."""
    provenance = Provenance.of(folder / "dvc.lock")
    assert provenance is not None
    return provenance.foreign(folder / name)


def test_a_finished_run_has_no_foreign_file(folder: Path) -> None:
    run = read(folder, checked=True)
    assert run.foreign == {}
    assert run.missing == []
    assert [card["of"] for card in verdicts(run)] == ["Audit of the split", "Checklist of the attacks"]


def test_a_metric_that_its_stage_did_not_write_is_left_out(folder: Path) -> None:
    write_record(folder / "metrics" / "train" / "one-clean.json", clean_record(0.9876))
    run = read(folder, checked=True)
    assert list(run.foreign) == [str(folder / "metrics" / "train" / "one-clean.json")]
    assert "train@one-clean" in next(iter(run.foreign.values()))
    assert "0.988" not in render_html(page_content(run, SETTINGS), {})
    assert verdicts(run)[-1]["tone"] == "bad"


def test_an_interrupted_stage_leaves_no_number(folder: Path) -> None:
    """It wrote its metrics and then failed: dvc.lock still has the hash of the earlier ones."""
    write_record(folder / "metrics" / "attack" / "one-adv-pgd.json", {**attack_record(), "queries": 2})
    run = read(folder, checked=True)
    assert ("one", "adv", "pgd") not in run.attacks.records
    assert ("one", "clean", "pgd") in run.attacks.records


def test_an_attack_on_an_earlier_model_is_left_out(folder: Path) -> None:
    """The model was trained again alone (`dvc repro -s`); its attacks and the ensemble were not run again."""
    before = (folder / "dvc.lock").read_text()
    model = folder / "data" / "checkpoints" / "one" / "adv"
    old = folder_md5(model)
    write_json(model / "card.json", {**card("one", "adv"), "metrics": {"n": 1}})
    new = folder_md5(model)
    train, rest = before.split("  train@one-adv:")
    (folder / "dvc.lock").write_text(train + "  train@one-adv:" + rest.replace(str(old), str(new), 1))
    run = read(folder, checked=True)
    assert run.training.records["one", "adv"] != {}
    assert {key[:2] for key in run.attacks.records} == {
        ("one", "clean"),
        ("two", "clean"),
        ("two", "adv"),
        ("ensemble", "adv"),
    }
    assert run.ensemble.record == {}
    assert any("ran on an earlier data/checkpoints/one/adv" in reason for reason in run.foreign.values())
    # A stage that read the folder of all models, which is no out of one stage.
    assert run.ensemble.transfer == {}
    assert "stage transfer ran on an earlier data/checkpoints" in run.foreign.values()


def test_a_changed_value_of_params_excludes_everything_that_depends_on_it(folder: Path) -> None:
    (folder / "params.yaml").write_text("seed: 1\nadv: {eps: 0.02}\n")
    run = read(folder, checked=True)
    assert run.training.records["one", "clean"] != {}
    assert run.training.records["one", "adv"] == {}
    assert {key[1] for key in run.attacks.records if key[0] != "ensemble"} == {"clean"}
    assert run.ensemble.record == {}
    assert "adv.eps in params.yaml has changed since stage train@one-adv ran" in run.foreign.values()


def test_numbers_of_other_code_are_left_out(folder: Path) -> None:
    """The page names the hash of its code: an edit whose stages have not run yet is not that code."""
    loop = folder / "src" / "training" / "loop.py"
    (loop.parent / "__pycache__").mkdir()
    (loop.parent / "__pycache__" / "loop.pyc").write_text("compiled")
    assert read(folder, checked=True).foreign == {}
    loop.write_text("epochs = 4\n")
    run = read(folder, checked=True)
    assert run.training.records["one", "clean"] == {}
    assert {key[0] for key in run.attacks.records} == {"ensemble"}
    assert "stage train@one-clean ran on an earlier src/training" in run.foreign.values()


def test_a_changed_seed_excludes_everything(folder: Path) -> None:
    (folder / "params.yaml").write_text("seed: 2\nadv: {eps: 0.01}\n")
    run = read(folder, checked=True)
    assert not run.header
    assert not run.attacks.records
    assert "No prepared data of this run" in render_html(page_content(run, SETTINGS), {})


def test_a_number_that_dvc_writes_as_text_is_the_same_number(folder: Path) -> None:
    (folder / "dvc.lock").write_text((folder / "dvc.lock").read_text().replace("adv.eps: 0.01", "adv.eps: 1e-02"))
    assert read(folder, checked=True).foreign == {}


def test_a_file_that_no_stage_writes_is_left_out(folder: Path) -> None:
    assert reason(folder, "metrics/stray.json") == "no stage of dvc.yaml writes it"


def test_a_command_that_has_changed_is_named(folder: Path) -> None:
    pipeline = folder / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace('prepare: {cmd: "true"', 'prepare: {cmd: "true 2"'))
    assert reason(folder, "metrics/train/one-adv.json") == "the command of stage prepare has changed since it ran"
    assert reason(folder, "metrics/tune/one.json") is None


def test_a_stage_without_a_record_is_named(folder: Path) -> None:
    entries = yaml.safe_load((folder / "dvc.lock").read_text())
    del entries["stages"]["train@one-clean"]
    (folder / "dvc.lock").write_text(yaml.safe_dump(entries))
    assert reason(folder, "metrics/checks/one-clean.json") == "dvc.lock has no record of stage train@one-clean"


def test_a_result_that_is_not_in_the_working_tree_counts_by_its_hash(folder: Path) -> None:
    """As after `dvc repro --pull --allow-missing`."""
    shutil.rmtree(folder / "data" / "checkpoints" / "one" / "clean")
    assert reason(folder, "metrics/attack/one-clean-pgd.json") is None
    text = (folder / "dvc.lock").read_text()
    entry = text.index("  train@one-clean:")
    out = text.index("    outs:", entry)
    (folder / "dvc.lock").write_text(text[:out] + text[out:].replace("md5: ", "md5: 0", 1))
    expected = "stage attack@one-clean-pgd ran on an earlier data/checkpoints/one/clean"
    assert reason(folder, "metrics/attack/one-clean-pgd.json") == expected


def test_a_file_that_dvc_linked_from_its_cache_belongs_to_the_run(folder: Path) -> None:
    for path in (folder / "data" / "checkpoints" / "one" / "adv" / "card.json", folder / "metrics" / "audit.json"):
        cached = folder / ".dvc" / "cache" / path.name
        cached.parent.mkdir(parents=True, exist_ok=True)
        path.rename(cached)
        path.symlink_to(cached)
    run = read(folder, checked=True)
    assert run.foreign == {}
    assert run.training.cards["one", "adv"] != {}


def test_stages_that_are_gone_do_not_matter(folder: Path) -> None:
    """dvc.lock keeps their entries, also with an out that another stage writes now."""
    text = (folder / "dvc.lock").read_text()
    gone = (
        "  gone:\n    cmd: x\n    deps: [{path: data/prepared/header.json, md5: old}]\n"
        "    outs: [{path: data/checkpoints/one/adv, md5: old}, {path: metrics/audit.json, md5: old}]\n"
    )
    (folder / "dvc.lock").write_text(text + gone)
    assert read(folder, checked=True).foreign == {}


@pytest.mark.parametrize("lost", ["dvc.lock", ".dvc"])
def test_without_a_lock_or_a_repository_the_page_says_that_nothing_was_checked(folder: Path, lost: str) -> None:
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = read(folder, checked=True)
    assert run.missing == []
    assert verdicts(run)[-1]["verdict"] == "not checked"


def test_folders_hash_as_dvc_hashes_them(folder: Path) -> None:
    provenance = Provenance.of(folder / "dvc.lock")
    assert provenance is not None
    for name in ("data/prepared", "data/checkpoints/one/adv", "data/methods"):
        assert provenance.md5(name) == folder_md5(folder / name)
    assert provenance.md5("data/nothing") is folder_md5(folder / "data" / "nothing") is None


def test_a_suite_that_was_taken_out_of_params_excludes_nothing(tmp_path: Path) -> None:
    """dvc.lock keeps its entry, and its file is still in the folder that the checks depend on."""
    pipeline = (
        "stages:\n"
        "  suite:\n    matrix: {suite: '${suites}'}\n    cmd: x\n    params: ['suites.${item.suite}']\n"
        "    outs: ['data/suites/${item.suite}.json']\n"
        "  check: {cmd: x, deps: [data/suites], outs: [check.json]}\n"
    )
    for name in ("old", "pgd"):
        write_json(tmp_path / "data" / "suites" / f"{name}.json", {"name": name})
    write_json(tmp_path / "check.json", {"verdict": "sound"})
    (tmp_path / "params.yaml").write_text("suites: {old: {eps: 1}, pgd: {eps: 1}}")
    write_repository(tmp_path, pipeline)
    lock(tmp_path)
    assert reason(tmp_path, "data/suites/old.json") is None
    (tmp_path / "params.yaml").write_text("suites: {pgd: {eps: 1}}")
    assert reason(tmp_path, "check.json") is None
    assert reason(tmp_path, "data/suites/old.json") == "no stage of dvc.yaml writes it"


def test_a_file_that_dvc_add_tracks_can_be_an_input(tmp_path: Path) -> None:
    raw = tmp_path / "raw.txt"
    raw.write_text("1")
    tracked = {"outs": [{"path": "raw.txt", "hash": "md5", "md5": file_hash(raw, "md5")}]}
    (tmp_path / "raw.txt.dvc").write_text(yaml.safe_dump(tracked))
    (tmp_path / "out.txt").write_text("1")
    write_repository(tmp_path, "stages: {copy: {cmd: x, deps: [raw.txt], outs: [out.txt]}}")
    lock(tmp_path)
    assert reason(tmp_path, "out.txt") is None
    raw.write_text("2")
    assert reason(tmp_path, "out.txt") == "stage copy ran on an earlier raw.txt"


def test_a_lock_that_dvc_is_writing_is_read_when_it_is_complete(folder: Path) -> None:
    """With stages side by side: DVC writes dvc.lock in place, and holds its own lock meanwhile."""
    from dvc.lock import Lock

    text, guard = (folder / "dvc.lock").read_text(), folder / ".dvc" / "tmp" / "lock"
    guard.parent.mkdir(parents=True, exist_ok=True)
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
    assert read(folder, checked=True).foreign == {}
    writer.join()
