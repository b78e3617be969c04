"""dvc.yaml tells the truth: each stage depends on its code and lists the params it reads, and names that exist."""

import ast
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from medrobust.core.params.schema import Params, check_params
from tests.params import preset, save
from tools.preset import names

ROOT = Path(__file__).resolve().parent.parent
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
#: Names in params.yaml that a matrix may run over.
AXES = (
    "models", "attacks.suites", "attacks.surrogates", "detect.ensemble", "ensemble.attacked",
    "patient.suites", "external.sets", "external.evaluated", "report.repeated",
)  # fmt: skip


def used_blocks(script: Path, function: str | None = None) -> set[str]:
    """Blocks of params.yaml that a script, or one function in it, uses: `params.adv` -> `adv`.

    The bare name `params` may only be assigned: whoever passes it on reads everything.
    """
    tree: ast.AST = ast.parse(script.read_text())
    if function:
        tree = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    blocks = set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Name) and node.id == "params" and isinstance(node.ctx, ast.Load)):
            continue
        parent = parents[node]
        assert isinstance(parent, ast.Attribute), f"{script}:{node.lineno} passes all params on"
        blocks.add(parent.attr)
    return blocks


def script_of(name: str) -> Path:
    """The script that a stage runs."""
    return ROOT / str(STAGES[name]["cmd"].split()[1])


def listed_blocks(name: str) -> set[str]:
    """The blocks of params.yaml that dvc.yaml lists for a stage."""
    return {param.split(".")[0] for param in STAGES[name]["params"]}


def test_every_script_belongs_to_a_stage() -> None:
    assert {*(ROOT / "stages").glob("*.py")} == {script_of(name) for name in STAGES}


def test_the_pipeline_stays_small() -> None:
    # External data have five stages: sets, data, audit, models, and results that were made without the pipeline.
    # Attacked patients have their own, so that no attack runs again for their probabilities.
    assert (ROOT / "dvc.yaml").read_text().count("\n") < 590
    # Pictures of single images need every model, and no number depends on them; corruptions need a script of their
    # own, because in stages/attack.py an edit of their code would run every attack. External data have two: an
    # edit of the evaluation must not fetch the data again, and neither may run a stage of the own data again.
    assert len([*(ROOT / "stages").glob("*.py")]) <= 22


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs(name: str) -> None:
    """One file of `data/code`, that of its script; only the stage `code` looks at source files."""
    deps = [dep for dep in STAGES[name]["deps"] if not dep.endswith(".json")]
    assert not [dep for dep in deps if dep.startswith(("src", "stages"))] or name == "code"
    code = [dep for dep in deps if dep.startswith("data/code")]
    wanted = {"code": [], "report": ["data/code"]}
    assert code == wanted.get(name, [f"data/code/{script_of(name).stem}"])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_registry_whose_entries_it_uses(name: str) -> None:
    """Directly, or by a file of stages/resolve.py that holds their hashes."""
    registries = {dep for dep in STAGES[name]["deps"] if dep.startswith("data/code/") and dep.endswith(".json")}
    wanted = {
        "download": "sources", "prepare": "sources", "suite": "attacks", "settings": "objectives",
        "detection": "detectors", "corruptions": "corruptions", "prepare_external": "external_sources",
        "evaluate_external": "detectors",
    }  # fmt: skip
    assert registries == ({f"data/code/{wanted[name]}.json"} if name in wanted else set())


@pytest.mark.parametrize("script", sorted((ROOT / "stages").glob("*.py")), ids=lambda path: path.stem)
def test_the_stages_of_a_script_list_the_params_that_it_reads(script: Path) -> None:
    """A command of a script with several is a function of that name; others read all that their stages list."""
    stages = [name for name in STAGES if script_of(name) == script]
    if script.stem in {"resolve", "hash_results", "external", "transfer"}:
        for name in stages:
            assert used_blocks(script, STAGES[name]["cmd"].split()[2]) == listed_blocks(name)
    else:
        used = used_blocks(script)
        assert all(listed_blocks(name) == used for name in stages)


@pytest.mark.parametrize("name", STAGES)
def test_listed_params_exist(name: str) -> None:
    for param in STAGES[name]["params"]:
        block, *rest = param.split(".")
        assert block in Params.model_fields
        if rest and "${" not in rest[0]:
            annotation = Params.model_fields[block].annotation
            assert annotation is not None
            assert rest[0] in annotation.model_fields


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_its_paths_in_its_command(name: str) -> None:
    """Outs, metrics and plots stand in the command, so that no script holds a path of its own."""
    stage, written = STAGES[name], []
    for kind in ("outs", "metrics", "plots"):
        written += [next(iter(out)) if isinstance(out, dict) else out for out in stage.get(kind, [])]
    for path in written:
        assert path in stage["cmd"], path


#: Folders of cells -> the file of a cheap stage, with a hash of all that is read from them, that is a dep instead.
HASHED = {
    "data/checkpoints": "data/resolved/checkpoints.json",
    "data/tune": "data/resolved/chosen.json",
    "data/resolved/suites": "data/resolved/suites.json",
    "data/predictions": "data/resolved/tables.json",
    "data/attacks": "data/resolved/tables.json",
    "data/corrupt": "data/resolved/tables.json",
    "data/transfer/patients": "data/resolved/tables.json",
    "data/guards": "data/resolved/guards.json",
    "data/attacks/${item.backbone}-clean": "data/resolved/attempts/${item.backbone}.json",
    "data/attacks/ensemble-${ensemble.regime}": "data/resolved/attempts/ensemble-${ensemble.regime}.json",
    "data/attacks/methods/${item.method}": "data/resolved/attempts/methods/${item.method}.json",
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_paths_that_it_is_given(name: str) -> None:
    """Else DVC may run it before the stage that writes them, or not at all when they change."""
    stage, written = STAGES[name], []
    for kind in ("outs", "metrics", "plots"):
        written += [next(iter(out)) if isinstance(out, dict) else out for out in stage.get(kind, [])]
    for flag, path in pairwise(stage["cmd"].split()):
        produced = path.partition("/")[0] in {"data", "models", "metrics", "plots"}
        if flag.startswith("--") and produced and path not in written:
            wanted = (path, HASHED.get(path))
            related = [dep for dep in stage["deps"] if dep in wanted or dep.startswith(f"{path}/")]
            assert related, f"{name}: {flag} {path} is no dep"


@pytest.mark.parametrize("name", STAGES)
def test_only_stages_of_seconds_depend_on_folders_where_removed_cells_leave_files(name: str) -> None:
    """Files that git tracks go with the commit that removed them; others stay on a colleague's disk.

    The folder of one suite may have files of surrogates that it no longer tries.
    """
    written = [out for stage in STAGES.values() for out in stage.get("outs", []) if isinstance(out, str)]
    cells = [out.rpartition("/")[0] for out in written if "${" in out]
    above = {re.sub(r"\$\{[^}]+\}", "x", str(folder)) for cell in cells for folder in (cell, *Path(cell).parents)}
    deps = [re.sub(r"\$\{[^}]+\}", "x", dep) for dep in STAGES[name]["deps"]]
    found = {dep for dep in deps if dep.replace("x-clean", "x-x").replace("x-adv", "x-x") in above}
    assert (
        name in ("detection", "external")
        or script_of(name).stem == "hash_results"
        or found <= {"data/resolved/suites/x"}
    )


@pytest.mark.parametrize("name", STAGES)
def test_matrix_axes_are_names_in_params(name: str) -> None:
    for axis in STAGES[name].get("matrix", {}).values():
        assert axis in (*(f"${{{name}}}" for name in AXES), ["clean", "adv"])


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_reads_what_is_handed_on(name: str) -> None:
    """A model card tells the results of all that loads a checkpoint."""
    assert not [dep for dep in STAGES[name]["deps"] if dep.split("/")[0] == "models"]


@pytest.mark.parametrize("name", STAGES)
def test_dvc_can_restore_every_stage_from_its_run_cache(name: str) -> None:
    """It keeps no run of a stage with an uncached out, unless that is a metric or a plot."""
    outs = [out for out in STAGES[name].get("outs", []) if not isinstance(out, str)]
    assert not [out for out in outs if any(props.get("cache") is False for props in out.values())]


def test_no_script_holds_a_path() -> None:
    for path in (ROOT / "stages").glob("*.py"):
        code = ast.parse(path.read_text())
        docs = {id(node.value) for node in ast.walk(code) if isinstance(node, ast.Expr)}
        texts = [
            n.value
            for n in ast.walk(code)
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs
        ]
        assert not [text for text in texts if re.match(r"(data|models|metrics|plots|report)/", text)], path


def outs_with(folder: Path, **ensemble: Any) -> dict[str, set[str]]:
    """Each stage's outs as DVC reads dvc.yaml beside params.yaml with another block `ensemble`."""
    from dvc.repo import Repo

    params = preset()
    params["ensemble"] |= ensemble
    save(folder, params)
    shutil.copy(ROOT / "dvc.yaml", folder)
    stages = Repo.init(str(folder), no_scm=True).index.stages
    return {stage.name: {str(out.def_path) for out in stage.outs} for stage in stages}


def test_the_ensembles_files_carry_its_regime_and_named_methods_are_attacked(tmp_path: Path) -> None:
    outs = outs_with(tmp_path, regime="clean", attacked=["equal", "stacking"])
    assert outs["attack_ensemble@white_box"] == {
        "data/attacks/ensemble-clean/white_box.parquet",
        "metrics/attack/ensemble-clean-white_box.json",
        "plots/attack/ensemble-clean-white_box.csv",
    }
    assert outs["check_ensemble"] == {"metrics/checks/ensemble-clean.json"}
    assert not [path for paths in outs.values() for path in paths if "ensemble-adv" in path]
    cells = {name: paths for name, paths in outs.items() if name.startswith("attack_method")}
    assert set(cells) == {f"attack_method@{method}-white_box" for method in ("equal", "stacking")}
    assert "metrics/methods/stacking-white_box.json" in cells["attack_method@stacking-white_box"]
    assert outs["check_method@stacking"] == {"metrics/checks/stacking-method.json"}


@pytest.mark.parametrize("name", names())
def test_every_preset_loads(name: str) -> None:
    params = check_params(preset(name), name)
    assert params.adv.eps in {eps for suite in params.attacks.suites.values() for eps in suite.eps}


@pytest.mark.parametrize("name", names())
def test_only_the_default_preset_names_the_table_of_its_seeds(name: str) -> None:
    tables = check_params(preset(name), name).report.repeated
    assert [table.file for table in tables] == (["docs/tables/seeds.csv"] if name == "default" else [])
    assert all((ROOT / table.file).is_file() for table in tables)


@pytest.mark.parametrize("name", names())
def test_every_preset_has_the_keys_that_dvc_reads(name: str) -> None:
    # DVC knows no defaults: a key that dvc.yaml fills in or lists must be in the file itself.
    content = preset(name)
    filled = set(re.findall(r"\$\{([\w.]+)\}", (ROOT / "dvc.yaml").read_text()))
    listed = {param for stage in STAGES.values() for param in stage["params"] if "${" not in param}
    for path in {path for path in filled if not path.startswith(("item.", "key"))} | listed:
        values: Any = content
        for key in path.split("."):
            assert key in values, f"{name} has no {path}"
            values = values[key]


def test_the_reader_of_params_refuses_a_bare_name(tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text("params = load_params()\nrun(params.adv, params.seed)\n")
    assert used_blocks(script) == {"adv", "seed"}
    script.write_text("params = load_params()\nrun(params)\n")
    with pytest.raises(AssertionError, match="passes all params on"):
        used_blocks(script)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-base.lock"])
def test_the_lock_names_no_address(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert not re.search(r"https?://|--(extra-)?index|--find-links", lock)
    assert "requests==2.25" not in lock


def test_the_base_is_a_part_of_the_lock_without_extras() -> None:
    base, whole = (
        {line.split(" ;")[0] for line in (ROOT / name).read_text().splitlines() if re.match(r"[a-z]", line)}
        for name in ("requirements-base.lock", "requirements.lock")
    )
    assert base < whole
    extras = ("gradio==", "onnx==", "distributed==", "pytest==", "dvc-s3==")
    assert sum(line.startswith(extras) for line in whole) == len(extras)
    assert not any(line.startswith(extras) for line in base)


def test_dvc_is_there_for_the_slow_tests() -> None:
    assert shutil.which("dvc") or (ROOT / ".venv" / "bin" / "dvc").is_file()
