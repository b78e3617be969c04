"""Write folders to share: a model with all that its use needs, and a model card that holds every result.

Format: Hugging Face Hub documentation, "Model Cards" and its `model-index`; content after Mitchell et al. 2019,
"Model Cards for Model Reporting". Attacks, checklist and audit need the checkpoint first, so it is copied last.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.records import atomic_dir, read_json
from medrobust.core.text import code_block
from medrobust.models.card import weights_hash
from medrobust.models.packaged_weights import find_package
from medrobust.models.use import Use
from medrobust.report.collect import Folders
from medrobust.report.publish.hub import licence_id, metadata
from medrobust.report.publish.parts import (
    Parts,
    Usage,
    copy_members,
    operating_points,
    travelling,
    write_parts,
)
from medrobust.report.run import Run
from medrobust.report.tables.accuracy import (
    TRAINING,
    attack_table,
    attacks_text,
    backbone_table,
    clean_table,
    short_table,
)
from medrobust.report.tables.checklist import checks_table
from medrobust.report.tables.constant import CONSTANT
from medrobust.report.tables.corruptions import corruption_tables_of
from medrobust.report.tables.data import audit_reasons, data_text, split_table
from medrobust.report.tables.external import external_tables, external_text
from medrobust.report.tables.patients import patient_short_table
from medrobust.report.tables.table import Table
from medrobust.report.tables.targeted import targeted_tables
from medrobust.report.tables.tuning import tuning_table
from medrobust.report.templates import environment

#: The files of a checkpoint (models/checkpoint.py, which would import torch).
CHECKPOINT = ("model.safetensors", "card.json")
#: Initial weights of clean training, by `weights` of the backbone's block.
STARTS = {"none": "random", "pretrained": "timm's pretrained ones, which have a licence of their own"}


@dataclass(frozen=True)
class PublishedModel:
    """The model that a card describes: of a backbone, or the ensemble."""

    run: Run  # results of its backbone; the checkpoint's card must be there, any other gap is listed
    backbone: str  # or `ensemble`
    regime: str
    suites: Mapping[str, SuiteParams]  # those that attacked it, by name, as in params.yaml
    confidence: float  # of the intervals
    parts: Parts
    usage: Usage

    def own(self, table: Table, title: str | None = None) -> Table:
        """A table's rows of this model, without the columns that name it, beside those of the constant answer."""
        rows = [row for row in table.rows if row[:2] == [self.backbone, TRAINING[self.regime]]]
        constant = [row for row in table.rows if row[0] == CONSTANT] if rows else []
        named = 1 if constant else 0  # with two kinds of rows each needs its name
        cells = [[*row[:named], *row[2:]] for row in (*rows, *constant)]
        return Table(title or table.title, [*[""] * named, *table.columns[2:]], cells, table.note)


def publish(model: PublishedModel, folders: Folders, out: Path) -> None:
    """Write all that a model needs, and its card, into one folder, completely or not at all.

    The weights are copied and not linked: a file that DVC linked to its cache must not get a second name.

    Raises:
        UserError: the checkpoint is missing, or a file that the card needs belongs to another run. A card that
            only lists such a file would stay, because nothing would make DVC run this stage again.
    """
    folder = folders.checkpoints / model.backbone / model.regime
    missing = {str(folder / name): "no such file" for name in CHECKPOINT if not (folder / name).is_file()}
    points = operating_points(model.run, folders.metrics, (model.backbone, model.regime), model.parts.guard)
    _check(missing | model.run.foreign)
    card = model.run.training.cards[model.backbone, model.regime]
    with atomic_dir(out) as temporary:
        for name in CHECKPOINT:
            shutil.copyfile(folder / name, temporary / name)
        use = write_parts(temporary, model.parts, model.usage, model.suites, card, card["sha256"])
        (temporary / "README.md").write_text(model_card(model, use, points), encoding="utf-8")


def publish_ensemble(model: PublishedModel, ensemble: Path, folders: Folders, out: Path) -> None:
    """Write the ensemble with the checkpoints of its members and its card into one folder, as `publish`."""
    card = read_json(ensemble / "card.json")
    points = operating_points(model.run, folders.metrics, model.run.ensemble.model, model.parts.guard)
    _check(model.run.foreign)
    with atomic_dir(out) as temporary:
        copy_members(ensemble, temporary)
        use = write_parts(temporary, model.parts, model.usage, model.suites, card, weights_hash(ensemble))
        text = _render("ensemble_card.md.jinja", model, use, points, card=card)
        (temporary / "README.md").write_text(text, encoding="utf-8")


def _check(problems: Mapping[str, str]) -> None:
    if problems:
        path, problem = next(iter(problems.items()))
        raise UserError(path, problem, "Run `dvc repro`, so that the stage that writes it runs")


def model_card(model: PublishedModel, use: Use, points: list[dict[str, Any]]) -> str:
    """The text of a model's README.md; `points` are those of `parts.operating_points`."""
    run = model.run
    card = run.training.cards[model.backbone, model.regime]
    short = short_table(run)
    note = f"Brackets are {model.confidence:.0%} intervals over whole patients. {short.note}"
    shown = [row[1:] for row in short.rows if row[0] == model.backbone]
    shown += _named_by_training(short)
    params = card.get("params", {})
    return _render(
        "model_card.md.jinja", model, use, points,
        card=card, patients=model.own(patient_short_table(run, model.confidence)),
        searched=run.training.studies.get(model.backbone, {}).get("trials"),
        glance=Table("", short.columns[1:], shown, note).with_warning(),
        metadata=metadata(run, model.backbone, model.regime, model.suites).to_yaml(),
        data_text=data_text(run),
        licensed=licence_id(str(run.header.get("licence", ""))), split=split_table(run),
        start=_start(params), clean_weights=params.get("clean"),
        chosen=tuning_table(run), settings=_settings(params), confusion=_confusion(model, card["classes"]),
        targeted=[table for table in map(model.own, targeted_tables(run, model.confidence)) if table.rows],
        stored=run.provenance.md5(f"data/checkpoints/{model.backbone}/{model.regime}") if run.provenance else None,
    )  # fmt: skip


def _render(template: str, model: PublishedModel, use: Use, points: list[dict[str, Any]], **values: Any) -> str:
    """A card from its template, with the values that the cards of all models show."""
    run, own, confidence = model.run, model.own, model.confidence
    full = backbone_table(run, model.backbone, confidence)
    numbers = [row[1:] for row in full.rows if row[0] == TRAINING[model.regime]]
    numbers += _named_by_training(full)
    templates = environment("medrobust.report.publish")
    templates.filters["attacks_text"] = attacks_text
    external = [own(table) for table in external_tables(run, confidence)]
    text = templates.get_template(template).render(
        backbone=model.backbone, regime=model.regime, training=TRAINING[model.regime], suites=model.suites,
        run=run, folder=f"models/{model.backbone}/{model.regime}", use=use, points=points, confidence=confidence,
        audit=run.audit.get("verdict", "missing"), audit_reasons=audit_reasons(run),
        clean=own(clean_table(run, confidence)),
        attacks={name: own(attack_table(run, name, confidence)) for name in run.suites},
        all_numbers=Table("All numbers", full.columns[1:], numbers, full.note),
        corrupted=corruption_tables_of(run, (model.backbone, model.regime), confidence)[:1],
        travelling=travelling(model.suites), external=[table for table in external if table.rows],
        external_text=external_text(run),
        failed=own(checks_table(run), "Checks that did not pass"), **values,
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


def _named_by_training(table: Table) -> list[list[str]]:
    """The constant answer of a table whose first column is left out: its name moves to the second one."""
    return [[CONSTANT, *row[2:]] for row in table.rows if row[0] == CONSTANT]


def _weights(params: dict[str, Any]) -> str:
    return str(params.get("model", {}).get("weights"))


def _start(params: dict[str, Any]) -> str:
    """Where the initial weights come from, with their licence where it is known."""
    if _weights(params) == "package":
        return find_package(params["model"]["timm"]).origin
    return STARTS.get(_weights(params), "those of a local file")


def _settings(params: dict[str, Any]) -> str:
    """The parameters of training as a block of YAML, without the folder of local weights, which stays private."""
    settings = {name: dict(values) for name, values in params.items() if isinstance(values, dict)}
    if "model" in settings and _weights(params) not in (*STARTS, "package"):
        settings["model"]["weights"] = Path(_weights(params)).name
    return code_block(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "yaml")


def _confusion(model: PublishedModel, classes: list[str]) -> Table | None:
    predictions = model.run.confusion.get((model.backbone, model.regime))
    if predictions is None:
        return None
    counts = predictions.value_counts(["actual", "predicted"])
    rows = [[name, *(str(counts.get((name, other), 0)) for other in classes)] for name in classes]
    return Table("Confusion matrix, clean images", ["actual \\ predicted", *classes], rows)
