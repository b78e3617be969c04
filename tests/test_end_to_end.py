"""The whole pipeline in a clone, on the smoke preset, and what DVC then says about changes."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from medrobust.core.intervals import round_to_interval
from medrobust.core.params.yaml_file import read_params
from medrobust.core.records import read_metrics
from medrobust.core.versions import installed
from tests.clones import commit, repro, run, smoke_run
from tests.params import save

pytestmark = pytest.mark.slow
#: An edit of a module's docstring instead of a text that is added.
DOCSTRING = "docstring"


def changed(folder: Path) -> set[str]:
    """Names of the stages that `dvc status` calls changed."""
    status: dict[str, Any] = json.loads(run(folder, "dvc", "status", "--json"))
    return {name.split(":")[-1] for name in status}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the working tree in which the smoke preset has run."""
    folder = tmp_path_factory.mktemp("clone") / "medrobust"
    smoke_run(tmp_path_factory, folder)
    return folder


@pytest.fixture
def pipeline(done: Path) -> Any:
    """The finished clone; params and sources are put back afterwards."""
    yield done
    run(done, "git", "checkout", "--quiet", "--", "params.yaml", "src")
    run(done, "dvc", "repro", "--quiet")


def set_param(folder: Path, change: Any) -> None:
    params = read_params(folder / "params.yaml")
    change(params)
    save(folder, params)


def test_the_run_leaves_a_report_with_every_model(done: Path) -> None:
    page = (done / "report" / "index.html").read_text()
    for word in ("resnet10t", "ensemble", "Audit of the split", "Checklist of the attacks", "NonDemented"):
        assert word in page
    assert "Detection of attacked images" in page
    assert "Drift of the maps under attack" in page
    assert page.count("Pictures of resnet10t") == 1
    metrics = read_metrics(done / "metrics" / "attack" / "resnet10t-adv-pgd.json")
    assert set(metrics["robust_accuracy"]) == {"0.005", "0.01"}
    assert metrics["robust_accuracy"]["0.01"] <= metrics["robust_accuracy"]["0.005"] <= metrics["clean_accuracy"]
    checks = read_metrics(done / "metrics" / "checks" / "resnet10t-adv.json")
    assert set(checks["suites"]) == {"pgd", "worst"}
    assert checks["verdict"] in page
    for word in ("Not of this run", "Missing results", "not checked"):
        assert word not in page, word
    run(done, "dvc", "plots", "show", "plots/results", "-o", "tmp/plots")
    assert (done / "tmp" / "plots" / "index.html").read_text().count('"facet"') == 3
    assert json.loads((done / "data" / "code" / "versions.json").read_text()) == installed()
    assert f"Computed with {installed()}." in page
    audit = read_metrics(done / "metrics" / "audit.json")
    assert audit["test_patients_in_train"] == 0


def test_no_result_holds_a_time_a_date_or_a_commit(done: Path) -> None:
    """Else the same run would give other files, and nobody could prove a reproduction."""
    commit = run(done, "git", "rev-parse", "HEAD").strip()
    written = [
        path for folder in ("metrics", "plots", "data", "models", "report") for path in written_in(done / folder)
    ]
    assert len(written) > 50
    for path in written:
        text = path.read_text()
        assert not re.search(r'"(seconds|time|date|duration|datetime\w*)"', text), path
        for word in (commit[:7], date.today().isoformat(), str(done)):
            assert word not in text, path
    assert "train-resnet10t-clean," in (done / "tmp" / "timings.csv").read_text()


def written_in(folder: Path) -> list[Path]:
    """Text files that the pipeline wrote; tests of attacks and training hold the others bit for bit."""
    return [path for path in folder.rglob("*") if path.suffix in {".json", ".csv", ".md", ".html", ".tex", ".txt"}]


def test_dvc_shows_a_few_flat_numbers_of_each_file(done: Path) -> None:
    content = json.loads(run(done, "dvc", "metrics", "show", "--json"))
    rows = {path: row["data"] for path, row in content[""]["data"].items()}
    written = {path.relative_to(done).as_posix() for path in (done / "metrics").rglob("*.json")}
    assert set(rows) == written
    for path, row in rows.items():
        # Of attacks that all failed detection has nothing to show.
        assert (0 if path.startswith("metrics/detect/") else 1) <= len(row) <= 6, path
        for name, value in row.items():
            assert isinstance(value, str | int | float), (path, name)
    # Images, patients, corruptions and external data have names of their own.
    assert len({name for row in rows.values() for name in row}) <= 22
    attacked, record = (
        rows["metrics/attack/resnet10t-adv-pgd.json"],
        read_metrics(done / "metrics" / "attack" / "resnet10t-adv-pgd.json"),
    )
    assert attacked == {
        f"robust@{eps}": round_to_interval(value, record["robust_accuracy_ci"][eps])
        for eps, value in record["robust_accuracy"].items()
    }
    assert rows["metrics/transfer.json"].keys() == {"transfer@0.01"}
    for regime, chosen in (("clean", "val_clean"), ("adv", "val_robust")):
        trained = read_metrics(done / "metrics" / "train" / f"resnet10t-{regime}.json")
        value = rows[f"metrics/train/resnet10t-{regime}.json"][chosen]
        assert value == round(trained["best_val_balanced_accuracy"], 2)
    assert rows["metrics/checks/resnet10t-adv.json"]["verdict"]


def test_a_second_repro_runs_no_stage(done: Path) -> None:
    assert changed(done) == set()
    assert repro(done) == set()


def test_what_removed_cells_left_runs_only_stages_of_seconds(pipeline: Path) -> None:
    """On the disk of a colleague who pulls a commit without a backbone and a suite that ran here before."""
    lock = yaml.safe_load((pipeline / "dvc.lock").read_text())["stages"]
    for top in ("data/checkpoints", "data/tune"):
        shutil.copytree(pipeline / top / "resnet10t", pipeline / top / "old")
    shutil.copytree(pipeline / "data/resolved/suites/pgd", pipeline / "data/resolved/suites/old")
    folders = ("resnet10t-clean", "resnet10t-adv", "ensemble-adv", "old-adv")
    for folder in (pipeline / "data/attacks" / name for name in folders):
        folder.mkdir(exist_ok=True)
        shutil.copy(pipeline / "data/attacks/resnet10t-adv/pgd.parquet", folder / "old.parquet")
    (pipeline / "metrics" / ".DS_Store").write_text("of a file manager")
    cheap = {"checkpoints", "detection", "external", "attempts@resnet10t", "attempts_ensemble", "tables"}
    try:
        assert changed(pipeline) == cheap
        assert repro(pipeline) == cheap
        assert changed(pipeline) == set()
        after = yaml.safe_load((pipeline / "dvc.lock").read_text())["stages"]
        assert {name for name in lock if lock[name] != after[name]} == cheap
        assert all(lock[name]["outs"] == after[name]["outs"] for name in cheap)
    finally:
        for path in [*pipeline.rglob("old"), *pipeline.rglob("old-adv"), *pipeline.rglob("old.parquet")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (pipeline / "metrics" / ".DS_Store").unlink()


def test_adv_eps_changes_only_what_depends_on_it(pipeline: Path) -> None:
    set_param(pipeline, lambda params: params["adv"].update(eps=0.005))
    checks = {"check@resnet10t", "check_ensemble"}
    assert changed(pipeline) == {"settings", "ensemble", *checks}
    ran = repro(pipeline)
    attacks = {
        "attack@resnet10t-adv-pgd",
        "attack@resnet10t-adv-worst",
        "attack_ensemble@pgd",
        "attack_ensemble@worst",
    }
    after = {"ensemble", "detect_ensemble@adv", "transfer", "explain@resnet10t", "publish@resnet10t", "report"}
    after |= {"cases", "publish_ensemble", "patient@resnet10t-adv", "attack_patient@resnet10t-adv-pgd"}
    after.add("transfer_patient@resnet10t-adv")
    after.add("detect@resnet10t-adv")  # switched off, but DVC sees another model
    after.add("evaluate_external@site_c-resnet10t")
    after |= {"checkpoints", "attempts@resnet10t", "attempts_ensemble", "guards", "tables", "corrupt@resnet10t"}
    assert ran == {"settings", "adv_train@resnet10t", *after, *attacks, *checks}
    run(pipeline, "git", "checkout", "--quiet", "--", "params.yaml")
    assert repro(pipeline) == set(), "the run cache did not restore the earlier results"
    assert changed(pipeline) == set()


def test_a_backbones_adversarial_override_trains_nothing_clean(pipeline: Path) -> None:
    set_param(pipeline, lambda params: params["models"]["resnet10t"].update(adv={"eps": 0.004}))
    assert repro(pipeline, "adv_train@resnet10t") == {"code", "settings", "adv_train@resnet10t"}
    run(pipeline, "git", "checkout", "--quiet", "--", "params.yaml")
    run(pipeline, "dvc", "repro", "--quiet")


@pytest.mark.parametrize(
    "edit",
    [
        ("attacks/methods/one_pixel.py", "\nADDED = 1\n"),  # no suite names it
        ("training/objectives/trades.py", "\nADDED = 1\n"),  # no training names it
        ("detection/detectors/kde.py", "\nADDED = 1\n"),
        ("data/sources/nifti.py", "\nADDED = 1\n"),
        ("attacks/methods/new.py", '"""A new attack."""\n'),
        ("training/loop.py", "\n# A comment.\n"),
        ("attacks/base.py", DOCSTRING),
    ],
    ids=lambda edit: edit[0],
)
def test_code_that_this_run_does_not_use_runs_one_cheap_stage(pipeline: Path, edit: tuple[str, str]) -> None:
    source = pipeline / "src" / "medrobust" / edit[0]
    known = source.is_file()
    text = source.read_text() if known else ""
    source.write_text(text.replace('"""', '"""Edited. ', 1) if edit[1] == DOCSTRING else text + edit[1])
    try:
        assert changed(pipeline) == {"code"}
        assert repro(pipeline) == {"code"}
        assert changed(pipeline) == set()
    finally:
        if not known:
            source.unlink()


def test_code_of_the_report_runs_the_report(pipeline: Path) -> None:
    source = pipeline / "src" / "medrobust" / "report" / "figures" / "contact_sheet.py"
    source.write_text(source.read_text() + "\nADDED = 1\n")
    assert repro(pipeline) == {"code", "report"}


def test_code_of_an_attack_runs_the_cells_of_its_suites(pipeline: Path) -> None:
    """Square is an attack of the suite `worst`; the checklist tries it on every model."""
    source = pipeline / "src" / "medrobust" / "attacks" / "methods" / "square.py"
    source.write_text(source.read_text() + "\nADDED = 1\n")
    cells = {"attack@resnet10t-clean-worst", "attack@resnet10t-adv-worst", "attack_ensemble@worst"}
    suites = {"suite@pgd", "suite@worst", "external"}  # cheap; what the suite pgd gave is as before
    # The suite is one that detection tests; a cell that is switched off takes a second.
    detected = {"detection", "detect_ensemble@adv", "detect@resnet10t-clean", "detect@resnet10t-adv"}
    checks = {"check@resnet10t", "check_ensemble"}
    assert repro(pipeline) == {"code", *suites, *cells, *checks, *detected, "cases", "report"}


def test_a_new_suite_changes_only_its_cells(pipeline: Path) -> None:
    suite = {"norm": "Linf", "eps": [0.01], "attacks": [{"name": "fgsm"}]}
    set_param(pipeline, lambda params: params["attacks"]["suites"].update(fgsm=suite))
    cells = {"attack@resnet10t-clean-fgsm", "attack@resnet10t-adv-fgsm", "attack_ensemble@fgsm"}
    after = {"check@resnet10t", "check_ensemble", "publish@resnet10t", "publish_ensemble", "cases", "report"}
    cheap = {"code", "suite@fgsm", "detection", "attempts@resnet10t", "attempts_ensemble", "tables"}
    assert changed(pipeline) == {*cheap, *cells, *after}


def test_the_weights_are_handed_on_with_a_card_of_every_result(done: Path) -> None:
    for regime in ("clean", "adv"):
        folder = done / "models" / "resnet10t" / regime
        trained = done / "data" / "checkpoints" / "resnet10t" / regime
        files = {"README.md", "card.json", "model.safetensors", "patient", "suites.json", "use.json"}
        assert {path.name for path in folder.iterdir()} == files | ({"guard"} if regime == "clean" else set())
        for path in trained.iterdir():
            assert (folder / path.name).read_bytes() == path.read_bytes()
        text = (folder / "README.md").read_text()
        (index,) = yaml.safe_load(text.split("---\n")[1])["model-index"]
        found = {metric["name"]: metric["value"] for metric in index["results"][0]["metrics"]}
        clean = read_metrics(done / "metrics" / "train" / f"resnet10t-{regime}.json")
        assert found["balanced_accuracy (clean)"] == clean["balanced_accuracy"]
        checks = read_metrics(done / "metrics" / "checks" / f"resnet10t-{regime}.json")
        for suite in ("pgd", "worst"):
            attacked = read_metrics(done / "metrics" / "attack" / f"resnet10t-{regime}-{suite}.json")
            believed = checks["suites"][suite]["verdict"] != "invalid"
            for eps, value in attacked["robust_accuracy"].items():
                indexed = found.get(f"robust accuracy ({suite}, Linf, eps {eps})")
                assert indexed == (value if believed else None)
                assert f"{value:.3f}" in text
        assert "What this card cannot tell" not in text


def test_the_code_of_a_model_card_runs(done: Path) -> None:
    card = (done / "models" / "resnet10t" / "adv" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    before = "import torch; from PIL import Image; Image.new('L', (40, 40), 90).save('IMAGE.png')\n"
    after = "print(tuple(model(torch.rand(2, 1, 32, 32)).shape), len(answers), answers[0].label in model.classes)"
    assert run(done, sys.executable, "-c", before + code + after).strip() == "(2, 4) 1 True"


def test_a_clone_that_pulls_runs_nothing(done: Path, tmp_path: Path) -> None:
    run(done, "dvc", "remote", "add", "--force", "--default", "store", str(tmp_path / "store"))
    run(done, "dvc", "push", "--quiet")
    commit(done, "results")
    run(tmp_path, "git", "clone", "--quiet", str(done), str(tmp_path / "other"))
    other = tmp_path / "other"

    # `--pull` gets only what dvc.yaml names as a dep; a report of a part must not pass for the whole.
    source = other / "src" / "medrobust" / "report" / "collect.py"
    source.write_text(source.read_text() + "\nADDED = 1\n")
    with pytest.raises(AssertionError, match=r"\.parquet: no such file\. Run `dvc pull`, then `dvc repro`"):
        run(other, "dvc", "repro", "--pull", "--allow-missing")
    run(other, "dvc", "pull", "--quiet", "--allow-missing")
    run(other, "dvc", "repro", "--pull", "--allow-missing")
    assert "Images of each class" in (other / "report" / "index.html").read_text()
    run(other, "git", "checkout", "--quiet", "--", ".")

    run(other, "dvc", "pull", "--quiet")
    assert (other / "models" / "resnet10t" / "adv" / "model.safetensors").is_file()
    assert "Running stage" not in run(other, "dvc", "repro")

    weights = Path("models", "resnet10t", "adv")
    run(tmp_path, "dvc", "get", str(other), str(weights), "--out", "elsewhere")
    code = "import medrobust; print(medrobust.load('elsewhere').classes[0])"
    assert run(tmp_path, sys.executable, "-c", code).strip() == "NonDemented"
    run(tmp_path, "dvc", "get", str(other), "models/ensemble/adv", "--out", "ensemble")
    Image.new("L", (40, 40), 90).save(tmp_path / "image.png")
    for model in ("elsewhere", "ensemble"):  # each alone, with its guard
        answers = run(tmp_path, sys.executable, "-m", "medrobust", "predict", model, "image.png").splitlines()
        assert len(answers) == 2
        assert ",true," in answers[1]


def test_a_registered_version_of_a_model_is_downloaded_by_its_name(done: Path, tmp_path: Path) -> None:
    """GTO's tags name versions and stages; `dvc artifacts get` finds the weights of the tagged commit."""
    run(done, "dvc", "remote", "add", "--force", "--default", "store", str(tmp_path / "store"))
    run(done, "dvc", "push", "--quiet", "publish@resnet10t")
    commit(done, "results")
    run(done, "git", "config", "user.name", "t")
    run(done, "git", "config", "user.email", "t@t")
    version = ("models:resnet10t-adv", "--version", "v1.0.0")
    run(done, "gto", "register", *version)
    run(done, "gto", "assign", *version, "--stage", "prod")
    assert "models:resnet10t-adv" in run(done, "gto", "show", "--plain")
    tags = run(done, "git", "tag").split()
    assert tags == ["models=resnet10t-adv#prod#1", "models=resnet10t-adv@v1.0.0"]
    weights = (done / "models" / "resnet10t" / "adv" / "model.safetensors").read_bytes()
    for wanted in (("--rev", "v1.0.0"), ("--stage", "prod")):
        out = tmp_path / wanted[1]
        run(tmp_path, "dvc", "artifacts", "get", str(done), version[0], *wanted, "--out", str(out))
        assert (out / "model.safetensors").read_bytes() == weights


def test_checkpoints_go_through_an_s3_remote(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("dvc_s3")
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
        run(done, "dvc", "remote", "add", "--force", "s3", "s3://bucket/medrobust")
        run(done, "dvc", "remote", "modify", "s3", "endpointurl", endpoint)
        run(done, "dvc", "push", "--quiet", "--remote", "s3", "publish@resnet10t")
        commit(done, "remote")
        run(tmp_path, "git", "clone", "--quiet", str(done), str(tmp_path / "other"))
        run(tmp_path / "other", "dvc", "pull", "--quiet", "--remote", "s3", "models/resnet10t/adv")
        weights = Path("models", "resnet10t", "adv", "model.safetensors")
        assert (tmp_path / "other" / weights).read_bytes() == (done / weights).read_bytes()
    finally:
        server.stop()


def test_a_wrong_key_ends_with_one_message(pipeline: Path) -> None:
    set_param(pipeline, lambda params: params["adv"].update(epz=0.005))
    environment = {**os.environ, "PYTHONPATH": str(pipeline / "src")}
    stage = [
        sys.executable,
        "stages/split.py",
        "--prepared",
        "data/prepared",
        "--out",
        "x.csv",
        "--metrics",
        "x.json",
    ]
    done = subprocess.run(stage, cwd=pipeline, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "params.yaml: adv.epz: unknown key" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (pipeline / "x.csv").exists()
