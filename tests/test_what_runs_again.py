"""The table of docs/experiments.md, "What runs again", names the stages that DVC runs after each change.

What DVC would run is computed from its own graph of dvc.yaml: a stage runs if it is new, if its command or a value
of params.yaml that it lists has changed, or if a stage that writes one of its deps has changed that file. Stages
that resolve params change only the files whose content differs; all others count as changing every out.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from medrobust.core.params.entries import used_entries
from medrobust.core.params.schema import Params, check_params
from medrobust.corruptions.lookup import chosen_names
from medrobust.corruptions.resolve import resolve_corruptions
from medrobust.training.resolve import resolve_settings
from tests.params import preset, save

ROOT = Path(__file__).resolve().parent.parent
#: Phrases of the table, as the list above it explains them.
CELLS = {
    "attack", "check", "detect", "explain", "corrupt", "patient", "attack_patient", "transfer_patient",
    "evaluate_external",
}  # fmt: skip
ATTACKS = {"attack", "attack_ensemble", "attack_method"}
CHECKS = {"check", "check_ensemble", "check_method"}
ENSEMBLE = {"ensemble", "detect_ensemble", "transfer", "publish_ensemble"} | (ATTACKS | CHECKS) - CELLS
PHRASES = {
    "cells of B": CELLS,
    "ensemble and what follows": ENSEMBLE,
    "and below": CELLS | ENSEMBLE | {"adv_train", "publish"},
    "all checks": CHECKS,
    "attack cells of S": ATTACKS | {"attack_patient"},
    "others that use S": {
        "detect",
        "detect_ensemble",
        "transfer",
        "transfer_patient",
        "explain",
        "evaluate_external",
        "publish_ensemble",
    },
    "the same for the suites": ATTACKS | CHECKS | {"publish", "publish_ensemble"},
    "the same for the new B": CELLS | ENSEMBLE | {"tune", "train", "adv_train", "publish"},
}
#: Rows of the table after which the stage `cases` does not run.
WITHOUT_CASES = {
    "`audit.*`", "`models.B.explain`", "`models.B.corrupt`", "other keys of `attacks`", "`patient.*`",
    "`transfer.*`",
    "`corruptions.modality`, `.names`, `.severities`, `.draws`", "other keys of `corruptions`",
    "`report.repeated`", "other keys of `report`, `study`", "`external`",
}  # fmt: skip
RESOLVED = {"code", "suite", "surrogate", "settings", "detection", "corruptions", "external"}
#: Cheap stages that hash results; the table does not list them.
HASHES = {"checkpoints", "attempts", "attempts_ensemble", "attempts_method", "guards", "tables"}
MORE = {"timm": "resnet18", "weights": "none", "image_size": 64, "detect": ["clean"], "explain": True}
SQUARE = [{"name": "square"}]
MOVED = {"norm": "Linf", "eps": [0.01], "attacks": [{"name": "transfer", "source": "resnet34-clean"}]}
LINE = {"suite": "moved", "backbone": "resnet34", "regime": "clean"}
ARCHIVE = {"source": "archive", "path": "b.zip", "classes": {"x": None}, "suites": [], "patient_suites": []}
#: Row of the table -> changes of params, each a list of (dotted key, value; None: the key is removed).
ROWS: dict[str, list[list[tuple[str, Any]]]] = {
    "`seed`": [[("seed", 2)]],
    "`data.*`": [[("data.image_size", 32)], [("data.source", "medmnist")]],
    "`split.*`": [[("split.test", 0.3)]],
    "`audit.*`": [[("audit.near_duplicate", 0.9)]],
    "`augment.*`": [[("augment.rotation", 1)]],
    "`tune.*`": [[("tune.trials", 9)]],
    "`models.B.tune.*`": [[("models.resnet34.tune", {"trials": 9})]],
    "`train.*`": [[("train.lr", 0.5)], [("train.objective", "gce")]],
    "`adv.*`": [[("adv.eps", 0.005)], [("adv.objective", "trades")]],
    "`models.B.adv.*`": [[("models.resnet34.adv", {"eps": 0.005})]],
    "`models.B.detect`": [[("models.resnet34.detect", ["adv"])]],
    "`models.B.explain`": [[("models.resnet34.explain", False)]],
    "`models.B.corrupt`": [[("models.resnet34.corrupt", True)]],
    "other keys of `models.B`": [[("models.resnet34.image_size", 96)]],
    "a backbone added": [[("models.more", MORE)]],
    "a backbone removed": [[("models.dinov2", None)]],
    "`attacks.suites.S`": [
        [("attacks.suites.white_box.eps", [0.5])], [("attacks.suites.white_box.attacks", SQUARE)],
    ],
    "`attacks.surrogates`": [[("attacks.suites.moved", MOVED), ("attacks.surrogates", [LINE])]],
    "other keys of `attacks`": [[("attacks.check_images", 9)]],
    "`detect.detectors`": [[("detect.detectors", {"kde": {}})]],
    "`detect.suites`": [[("detect.suites", {"white_box": 0.01})]],
    "other keys of `detect`": [[("detect.fpr", 0.1)]],
    "`ensemble.attacked`": [[("ensemble.attacked", ["equal", "stacking"])]],
    "other keys of `ensemble`": [[("ensemble.method", "stacking")]],
    "`patient.*`": [[("patient.aggregate", "max")], [("patient.suites", [])]],
    "`transfer.*`": [[("transfer.images", 9)]],
    "`explain.*`": [[("explain.images", 9)], [("explain.grid", 2)]],
    "`corruptions.modality`, `.names`, `.severities`, `.draws`": [
        [("corruptions.draws", 9)], [("corruptions.names", ["gamma"])], [("corruptions.modality", "ct")],
    ],
    "other keys of `corruptions`": [[("corruptions.baseline", "efficientnet_b0-adv")]],
    "`external`": [
        [("external.sets.site_c.suites", [])], [("external.sets.site_c.phantom.shift", 0.1)],
        [("external.sets.more", ARCHIVE)],
    ],
    "`report.bootstrap`, `report.confidence`": [[("report.bootstrap", 9)], [("report.confidence", 0.9)]],
    "`report.repeated`": [[("report.repeated", [{"over": "seeds", "file": "t.csv"}])]],
    "other keys of `report`, `study`": [[("report.title", "t")], [("study.funding", "a grant")]],
}  # fmt: skip


def base() -> dict[str, Any]:
    """The default parameters with what is off by default switched on."""
    params = preset()
    params["ensemble"]["attacked"], params["detect"]["ensemble"] = ["equal"], ["adv"]
    return params


def changed(changes: list[tuple[str, Any]]) -> dict[str, Any]:
    params = base()
    for key, value in changes:
        *path, last = key.split(".")
        block = params
        for part in path:
            block = block[part]
        if value is None:
            del block[last]
        else:
            block[last] = value
    return params


def table() -> dict[str, tuple[str, str]]:
    """Row of the documented table -> what is resolved first, and what runs."""
    text = (ROOT / "docs" / "experiments.md").read_text()
    part = text[text.index("| changed | resolved first | runs |") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()[2:]]
    return {name: (first, runs) for name, first, runs in rows}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Any]:
    """Function from params to DVC's graph, with an edge from each stage to those that it depends on."""
    graphs: dict[str, Any] = {}

    def build(params: dict[str, Any]) -> Any:
        folder = tmp_path_factory.mktemp("dvc")
        text = save(folder, params).read_text()
        if text not in graphs:
            shutil.copy(ROOT / "dvc.yaml", folder)
            graphs[text] = Repo.init(str(folder), no_scm=True).index.graph
        return graphs[text]

    return build


def value_at(params: dict[str, Any], key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def resolved_files(params: Params) -> dict[str, Any]:
    """What the stages that resolve params write: path -> content."""
    used = used_entries(
        params.data.source, [params.train.objective, params.adv.objective], params.models.values(),
        params.attacks.suites.values(), params.detect.detectors,
        chosen_names(params.corruptions.modality, params.corruptions.names),
    )  # fmt: skip
    files: dict[str, Any] = {f"data/code/{kind}.json": names for kind, names in used.items()}
    files |= {f"data/resolved/suites/{name}/suite.json": suite for name, suite in params.attacks.suites.items()}
    settings = "data/resolved/settings"
    for name, model in params.models.items():
        found = resolve_settings(name, model, params.train, params.adv, params.tune)
        files |= {f"{settings}/{name}/{stage}.json": content for stage, content in found.items()}
        files |= {f"{settings}/{name}/{stage}.json": content for stage, content in model.switches().items()}
    named = {name: params.attacks.suites[name] for name in params.detect.suites}
    detect = params.detect.model_dump(exclude={"ensemble"})
    return {
        **files,
        f"{settings}/backbones.json": list(params.models),
        "data/resolved/detection.json": [detect, named],
        "data/resolved/suites.json": params.attacks.suites,
        "data/code/external_sources.json": {block.source for block in params.external.sets.values()},
        **{
            f"data/resolved/external/{name}.json": [
                block,
                *(params.attacks.suites[suite] for suite in block.suites),
            ]
            for name, block in params.external.sets.items()
        },
        "metrics/external/sets.json": list(params.external.sets),
        "data/resolved/corruptions.json": resolve_corruptions(params.corruptions, {}),
    }


def overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def runs(old: dict[str, Any], new: dict[str, Any], build: Callable[[dict[str, Any]], Any]) -> Iterator[str]:
    """The kinds of the stages that DVC runs after the params have changed."""
    before = {stage.name: stage for stage in build(old).nodes}
    contents = [resolved_files(check_params(params, "params.yaml")) for params in (old, new)]
    differing = {path for path in contents[1] if contents[0].get(path) != contents[1][path]}
    written: set[str] = set()
    graph = build(new)
    order = sorted(graph.nodes, key=lambda stage: len(descendants(graph, stage)))
    for stage in order:
        keys = [key for dep in stage.deps for key in getattr(dep, "params", [])]
        deps = [str(dep.def_path) for dep in stage.deps if not hasattr(dep, "params")]
        known = before.get(stage.name)
        if (
            known is None or known.cmd != stage.cmd
            or any(value_at(old, key) != value_at(new, key) for key in keys)
            or any(overlap(dep, path) for dep in deps for path in written)
        ):  # fmt: skip
            kind = stage.name.partition("@")[0]
            outs = {str(out.def_path) for out in stage.outs}
            if kind in RESOLVED - {"surrogate"}:
                outs = {path for path in differing if any(overlap(path, out) for out in outs)}
            written |= outs
            yield kind


def descendants(graph: Any, stage: Any) -> set[Any]:
    """All stages that a stage depends on, directly or not."""
    found: set[Any] = set()
    todo = [stage]
    while todo:
        for other in graph.successors(todo.pop()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def documented(text: str, graph: Any) -> set[str]:
    """The kinds of stages that a cell of the table names."""
    kinds = {stage.name.partition("@")[0] for stage in graph.nodes} | {"surrogate"}
    found = {name for name in re.findall(r"\w+", text.replace("-", " ")) if name in kinds}
    for phrase, meant in PHRASES.items():
        found |= meant if phrase in text else set()
    if "all that follows" in text:
        start = {stage for stage in graph.nodes if stage.name.partition("@")[0] in found}
        found |= {stage.name.partition("@")[0] for stage in graph.nodes if descendants(graph, stage) & start}
    return found


def test_the_table_has_a_row_for_every_block_of_the_parameters() -> None:
    assert set(table()) == {*ROWS, "`requirements.lock`"}
    named = " ".join(ROWS)
    assert not [block for block in Params.model_fields if f"`{block}" not in named]


@pytest.mark.parametrize("row", ROWS)
def test_the_table_names_the_stages_that_run(row: str, graph: Callable[[dict[str, Any]], Any]) -> None:
    """All changes of a row together run what it names; `report` and `cases` are not named."""
    ran = {kind for changes in ROWS[row] for kind in runs(base(), changed(changes), graph)}
    first, others = table()[row]
    pipeline = graph(base())
    assert documented(first, pipeline) == ran & RESOLVED
    listed, beside = documented(others, pipeline), RESOLVED | HASHES | {"report", "cases"}
    assert listed - beside == ran - beside
    assert "report" in ran
    assert ("cases" in ran) == (row not in WITHOUT_CASES)


@pytest.mark.parametrize("key", ["explain.grid", "report.cases", "report.pictures"])
def test_some_keys_run_the_page_of_single_images_too(key: str, graph: Callable[[dict[str, Any]], Any]) -> None:
    value: Any = False if key == "report.pictures" else 3
    assert "cases" in set(runs(base(), changed([(key, value)]), graph))
