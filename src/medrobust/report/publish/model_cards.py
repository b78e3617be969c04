"""Copy the checkpoints of a backbone into folders to share, each with a model card that holds every result.

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
from medrobust.core.records import atomic_dir
from medrobust.core.text import code_block
from medrobust.models.packaged_weights import find_package
from medrobust.report.collect import Folders
from medrobust.report.publish.hub import licence_id, metadata
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
from medrobust.report.tables.corruptions import corruption_tables_of
from medrobust.report.tables.data import audit_reasons, data_text, split_table
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
    """The model that a card describes."""

    run: Run  # results of its backbone; the checkpoint's card must be there, any other gap is listed
    backbone: str
    regime: str
    suites: Mapping[str, SuiteParams]  # those that attacked it, by name, as in params.yaml
    confidence: float  # of the intervals

    def own(self, table: Table, title: str | None = None) -> Table:
        """A table's rows of this model, without the columns that name it."""
        rows = [row[2:] for row in table.rows if row[:2] == [self.backbone, TRAINING[self.regime]]]
        return Table(title or table.title, table.columns[2:], rows, table.note)


def publish(model: PublishedModel, folders: Folders, out: Path) -> None:
    """Write a model's checkpoint and its card into one folder, completely or not at all.

    The weights are copied and not linked: a file that DVC linked to its cache must not get a second name.

    Raises:
        UserError: the checkpoint is missing, or a file that the card needs belongs to another run. A card that
            only lists such a file would stay, because nothing would make DVC run this stage again.
    """
    folder = folders.checkpoints / model.backbone / model.regime
    missing = {str(folder / name): "no such file" for name in CHECKPOINT if not (folder / name).is_file()}
    if problems := missing | model.run.foreign:
        path, problem = next(iter(problems.items()))
        raise UserError(path, problem, "Run `dvc repro`, so that the stage that writes it runs")
    with atomic_dir(out) as temporary:
        for name in CHECKPOINT:
            shutil.copyfile(folder / name, temporary / name)
        (temporary / "README.md").write_text(model_card(model), encoding="utf-8")


def model_card(model: PublishedModel) -> str:
    """The text of a model's README.md."""
    run, own, confidence = model.run, model.own, model.confidence
    card = run.training.cards[model.backbone, model.regime]
    short, full = short_table(run), backbone_table(run, model.backbone, confidence)
    note = f"Brackets are {confidence:.0%} intervals over whole patients. {short.note}"
    shown = [row[1:] for row in short.rows if row[0] == model.backbone]
    glance = Table("", short.columns[1:], shown, note).with_warning()
    numbers = [row[1:] for row in full.rows if row[0] == TRAINING[model.regime]]
    params = card.get("params", {})
    folder = f"{model.backbone}/{model.regime}"
    templates = environment("medrobust.report.publish")
    templates.filters["attacks_text"] = attacks_text
    text = templates.get_template("model_card.md.jinja").render(
        backbone=model.backbone, regime=model.regime, training=TRAINING[model.regime],
        suites=model.suites, run=run, card=card, folder=f"models/{folder}", glance=glance,
        metadata=metadata(run, model.backbone, model.regime, model.suites).to_yaml(),
        audit=run.audit.get("verdict", "missing"), audit_reasons=audit_reasons(run), data_text=data_text(run),
        licensed=licence_id(str(run.header.get("licence", ""))), split=split_table(run),
        start=_start(params), clean_weights=params.get("clean"),
        chosen=tuning_table(run), settings=_settings(params),
        clean=own(clean_table(run, confidence)), confusion=_confusion(model, card["classes"]),
        attacks={name: own(attack_table(run, name, confidence)) for name in run.suites},
        targeted=[table for table in map(own, targeted_tables(run, confidence)) if table.rows],
        all_numbers=Table("All numbers", full.columns[1:], numbers, full.note),
        corrupted=corruption_tables_of(run, (model.backbone, model.regime), confidence)[:1],
        failed=own(checks_table(run), "Checks that did not pass"),
        stored=run.provenance.md5(f"data/checkpoints/{folder}") if run.provenance else None,
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


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
