"""Copy the checkpoints of a backbone into folders to share, each with a model card that holds every result.

Format: Hugging Face Hub documentation, "Model Cards" and its `model-index`; content after Mitchell et al. 2019,
"Model Cards for Model Reporting". A card contains the results of attacks, checklist and audit, which need the
checkpoint first. So training writes `data/checkpoints`, and the weights are copied beside their card when all
results are there.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.records import atomic_dir
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
from medrobust.report.tables.data import audit_reasons, data_text, split_table
from medrobust.report.tables.table import Table
from medrobust.report.tables.targeted import targeted_tables
from medrobust.report.tables.tuning import tuning_table

#: The files of a checkpoint (models/checkpoint.py, which would import torch).
CHECKPOINT = ("model.safetensors", "card.json")
#: The purpose of each regime.
PURPOSES = {
    "clean": "trained on clean images only, as the baseline for its adversarially trained counterpart",
    "adv": "adversarially trained, so that invisible changes of pixels affect its predictions less",
}
#: Initial weights of clean training, by `weights` of the backbone's block.
STARTS = {"none": "random", "pretrained": "timm's pretrained ones, which have a licence of their own"}


@dataclass(frozen=True)
class PublishedModel:
    """The model that a card describes.

    Attributes:
        run: the results of its backbone; the card of its checkpoint must be there, any other gap is listed.
        backbone, regime: the model.
        suites: the suites that attacked it, by name, as params.yaml has them.
        confidence: of the intervals.
    """

    run: Run
    backbone: str
    regime: str
    suites: Mapping[str, SuiteParams]
    confidence: float

    @property
    def card(self) -> dict[str, Any]:
        """The record that training wrote beside the weights."""
        found: dict[str, Any] = self.run.training.cards[self.backbone, self.regime]
        return found

    def own(self, table: Table, title: str | None = None) -> Table:
        """A table's rows of this model, without the columns that name it."""
        rows = [row[2:] for row in table.rows if row[:2] == [self.backbone, TRAINING[self.regime]]]
        return Table(title or table.title, table.columns[2:], rows, table.note)


def publish(model: PublishedModel, folders: Folders, out: Path) -> None:
    """Write a model's checkpoint and its card into one folder, completely or not at all.

    The weights are copied and not linked: a file that DVC linked to its cache must not get a second name.

    Args:
        model: the model.
        folders: where the files of its run are.
        out: the folder, for instance `models/resnet34/adv`.

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
    norms = {name: suite.norm for name, suite in model.suites.items()}
    parts = [f"---\n{metadata(model.run, model.backbone, model.regime, norms).to_yaml()}\n---"]
    for section in (_summary, _gaps, _use, _data, _training, _evaluation, _limits, _origin):
        parts += section(model)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _summary(model: PublishedModel) -> list[str]:
    run, card = model.run, model.card
    table = short_table(run)
    rows = [row[1:] for row in table.rows if row[0] == model.backbone]
    note = f"Brackets are {model.confidence:.0%} intervals over whole patients. {table.note}"
    return [
        f"# {model.backbone}, {TRAINING[model.regime]} training",
        f"An image classifier ({card['model']['timm']}, {card['model']['image_size']} pixels), "
        f"{PURPOSES[model.regime]}. Classes, in the order of its logits: {', '.join(card['classes'])}.",
        "**For research only. This is no medical device, and no number below shows that it is safe to use.**",
        "## At a glance",
        _untitled(Table("", table.columns[1:], rows, note).with_warning(model.confidence, run.test_patients())),
        f"Audit of the split: **{run.audit.get('verdict', 'missing')}**. Checklist of the attacks on this model: "
        f"**{run.worst_verdict(model.backbone, model.regime)}** (explained in “How far to trust these numbers”).",
    ]


def _gaps(model: PublishedModel) -> list[str]:
    """What the card should contain and cannot; an old number never fills a gap."""
    run = model.run
    lines = [f"- `{path}`: missing" for path in run.missing]
    if run.provenance is None:
        lines.append("- there is no dvc.lock to compare the results with: they were not checked")
    return ["## Missing in this card", "\n".join(lines)] if lines else []


def _use(model: PublishedModel) -> list[str]:
    folder = f"models/{model.backbone}/{model.regime}"
    colours = {1: "grey ", 3: "colour "}.get(model.run.header.get("channels", 0), "")
    return [
        "## Use",
        "```python\n"
        "import medrobust  # the package in the repository that made this model\n\n"
        f'model = medrobust.load("{folder}")  # this folder, wherever it is; checks the hash of the weights\n'
        "logits = model(images)  # images float32 n×C×H×W in [0, 1]; resized and normalised inside\n"
        "names = [model.classes[k] for k in logits.argmax(1)]\n\n"
        f'answers = medrobust.predict(images, "{folder}")  # with uncalibrated probabilities; accepts a guard\n'
        "```",
        f"Use square {colours}images, prepared like the training images (docs/data.md of that repository).",
        "**Intended use:** research, to compare defences, attacks, detectors and explanations on the data below.",
        "**Out of scope:** diagnosis, triage or any other decision about a patient, and images of other scanners, "
        "protocols or populations than those below: nothing was measured on them.",
    ]


def _data(model: PublishedModel) -> list[str]:
    run, header = model.run, model.run.header
    counts = split_table(run)
    reasons = "".join(f" {line[0].upper()}{line[1:]}." for line in audit_reasons(run))
    licence = (
        "The licence in the metadata of this card is that of the images, from which the weights were learned."
        if licence_id(str(header.get("licence", "")))
        else "The metadata of this card have no licence: the Hub has no identifier for that of the images."
    )
    size = (
        f"{header.get('images')} images of {header.get('patients')} patients, {header.get('image_size')} pixels."
    )
    return [
        "## Data",
        *([size, *data_text(run), licence] if header else ["No record of the data was found."]),
        *([_untitled(counts)] if counts.rows else []),
        f"Audit of the split: **{run.audit.get('verdict', 'missing')}**.{reasons}",
    ]


def _training(model: PublishedModel) -> list[str]:
    run, params = model.run, model.card.get("params", {})
    weights = str(params.get("model", {}).get("weights"))
    start = STARTS.get(weights, "those of a local file")
    if model.regime == "adv":
        start = f"those of the clean model (sha256 `{params.get('clean')}`), whose own were {start}"
    settings = {name: dict(values) for name, values in params.items() if isinstance(values, dict)}
    if weights not in STARTS and "model" in settings:
        settings["model"]["weights"] = Path(weights).name  # the folder of a local file is not published
    return [
        "## Training",
        f"{TRAINING[model.regime].capitalize()} training, seed {model.card.get('seed')}. "
        f"Initial weights: {start}.",
        "Hyper-parameters that the search chose:",
        _untitled(tuning_table(run)),
        "All settings:",
        f"```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}```",
    ]


def _evaluation(model: PublishedModel) -> list[str]:
    run, confidence = model.run, model.confidence
    full = backbone_table(run, model.backbone, confidence)
    rows = [row[1:] for row in full.rows if row[0] == TRAINING[model.regime]]
    parts = ["## Evaluation", model.own(clean_table(run, confidence)).markdown(), *_confusion(model)]
    for name in run.suites:
        table, suite = model.own(attack_table(run, name, confidence)), model.suites[name]
        parts += [f"### {table.title}", f"Norm {suite.norm}. Attacks: {attacks_text(suite)}.", _untitled(table)]
    targeted = [model.own(table) for table in targeted_tables(run, confidence)]
    parts += [table.markdown() for table in targeted if table.rows]
    return [*parts, Table("All numbers", full.columns[1:], rows, full.note).markdown()]


def _confusion(model: PublishedModel) -> list[str]:
    predictions = model.run.confusion.get((model.backbone, model.regime))
    if predictions is None:
        return []
    names, counts = model.card["classes"], predictions.value_counts(["actual", "predicted"])
    rows = [[name, *(str(counts.get((name, other), 0)) for other in names)] for name in names]
    return [Table("Confusion matrix, clean images", ["actual \\ predicted", *names], rows).markdown()]


def _limits(model: PublishedModel) -> list[str]:
    run = model.run
    verdicts = [f"{suite} **{run.verdict_of(model.backbone, model.regime, suite)}**" for suite in run.suites]
    lines = [
        f"Checklist of the attacks, by suite: {', '.join(verdicts)}.",
        "Robust accuracy is an upper bound: a stronger attack can only lower it. Norms and radii that are in no "
        "table above, and other kinds of change (rotation, blur, another scanner), were not tried.",
        "The intervals cover the uncertainty from the number of test patients, not the difference to other data.",
    ]
    failed = model.own(checks_table(run), "Checks that did not pass")
    return [
        "## How far to trust these numbers",
        "\n".join(f"- {line}" for line in lines),
        *([failed.markdown()] if failed.rows else []),
    ]


def _origin(model: PublishedModel) -> list[str]:
    card, provenance = model.card, model.run.provenance
    stored = provenance.md5(f"data/checkpoints/{model.backbone}/{model.regime}") if provenance else None
    hashes = {"weights, sha256": "sha256", "images, sha256": "data", "split, hash of its table": "split"}
    lines = [f"{name}: `{card.get(key)}`" for name, key in hashes.items()]
    if stored:
        lines.append(f"commits of the repository with this checkpoint: `git log --oneline -S{stored} -- dvc.lock`")
    lines.append(", ".join(f"{name} {version}" for name, version in card.get("versions", {}).items()))
    return ["## Origin", "\n".join(f"- {line}" for line in lines if line)]


def _untitled(table: Table) -> str:
    return table.markdown().partition("\n\n")[2]
