"""What one hands on of a backbone: its checkpoints, each with a model card that tells every result.

Format: Hugging Face Hub documentation, "Model Cards" and its `model-index`; content after Mitchell et al. 2019,
"Model Cards for Model Reporting". A card tells what attacks, the checklist and the audit found, and attacks come
after the checkpoint that they need. So training writes `data/checkpoints`, and the weights go into a folder with
their card when all of that is known.
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
from medrobust.report.collect import Folders, Run
from medrobust.report.publish.hub import licence_id, metadata
from medrobust.report.tables.cells import Table
from medrobust.report.tables.data import audit_words, data_text
from medrobust.report.tables.models import (
    TRAINING,
    attack_table,
    backbone_table,
    checks_table,
    clean_table,
    short_table,
    split_table,
    tuning_table,
)
from medrobust.report.tables.targeted import targeted_tables

#: What a checkpoint consists of (models/checkpoint.py, which would import torch).
CHECKPOINT = ("model.safetensors", "card.json")
#: What a regime's training is for.
KINDS = {
    "clean": "trained on clean images alone: what its adversarially trained sibling is to be compared with",
    "adv": "adversarially trained, on attacked images, to be moved less by changes of pixels that no eye sees",
}
#: Where clean training started, by `weights` of the backbone's block.
STARTS = {"none": "random", "pretrained": "timm's pretrained ones, which have a licence of their own"}


@dataclass(frozen=True)
class Subject:
    """The model that a card is about.

    Attributes:
        run: what is known of its backbone; the card of its checkpoint must be there, every other gap is named.
        backbone, regime: which model.
        suites: what attacked it, as params.yaml has it, by name.
        confidence: of the intervals.
    """

    run: Run
    backbone: str
    regime: str
    suites: Mapping[str, SuiteParams]
    confidence: float

    @property
    def card(self) -> dict[str, Any]:
        """What training wrote beside the weights."""
        found: dict[str, Any] = self.run.cards[self.backbone, self.regime]
        return found

    def own(self, table: Table, title: str | None = None) -> Table:
        """A table's rows of this model, without the columns that name it."""
        rows = [row[2:] for row in table.rows if row[:2] == [self.backbone, TRAINING[self.regime]]]
        return Table(title or table.title, table.columns[2:], rows, table.note)


def publish(subject: Subject, folders: Folders, out: Path) -> None:
    """Write a model's checkpoint and its card into one folder, whole or not at all.

    The weights are copied and not linked: what DVC linked to its cache must not get a second name.

    Args:
        subject: the model.
        folders: where the files of its run are.
        out: the folder, for instance `models/resnet34/adv`.

    Raises:
        UserError: the checkpoint is missing, or a file that the card tells of belongs to another run. DVC would
            keep a card that names it, because this stage depends on nothing that raised the doubt.
    """
    folder = folders.checkpoints / subject.backbone / subject.regime
    lost = {str(folder / name): "no such file" for name in CHECKPOINT if not (folder / name).is_file()}
    if doubts := lost | subject.run.foreign:
        path, found = next(iter(doubts.items()))
        raise UserError(path, found, "Run `dvc repro`, so that the stage that writes it runs")
    with atomic_dir(out) as temporary:
        for name in CHECKPOINT:
            shutil.copyfile(folder / name, temporary / name)
        (temporary / "README.md").write_text(model_card(subject), encoding="utf-8")


def model_card(subject: Subject) -> str:
    """The text of a model's README.md."""
    norms = {name: suite.norm for name, suite in subject.suites.items()}
    front = metadata(subject.run, subject.backbone, subject.regime, norms)
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    parts = [f"---\n{text}---"]
    for section in (_summary, _gaps, _use, _data, _training, _evaluation, _limits, _origin):
        parts += section(subject)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _summary(subject: Subject) -> list[str]:
    run, card = subject.run, subject.card
    table = short_table(run)
    rows = [row[1:] for row in table.rows if row[0] == subject.backbone]
    note = f"Brackets are {subject.confidence:.0%} intervals over whole patients. {table.note}"
    return [
        f"# {subject.backbone}, {TRAINING[subject.regime]} training",
        f"An image classifier ({card['model']['timm']}, {card['model']['image_size']} pixels), "
        f"{KINDS[subject.regime]}. Classes, in the order of its logits: {', '.join(card['classes'])}.",
        "**For research. It is no medical device, and no number below says that it is safe to use on patients.**",
        "## At a glance",
        _untitled(Table("", table.columns[1:], rows, note).warned(subject.confidence, run.fewest())),
        f"Audit of the split: **{run.audit.get('verdict', 'missing')}**. Checklist of the attacks on this model: "
        f"**{run.verdict(subject.backbone, subject.regime)}**; “How far to believe it” tells what that means.",
    ]


def _gaps(subject: Subject) -> list[str]:
    """What should be told and cannot be; it is never filled in by an old number."""
    run = subject.run
    lines = [f"- `{path}`: missing" for path in run.missing]
    lines += (
        ["- no dvc.lock says which run the results belong to: none was checked"] if run.lineage is None else []
    )
    return ["## What this card cannot tell", "\n".join(lines)] if lines else []


def _use(subject: Subject) -> list[str]:
    place = f"models/{subject.backbone}/{subject.regime}"
    colours = {1: "grey ", 3: "colour "}.get(subject.run.header.get("channels", 0), "")
    return [
        "## Use",
        "```python\n"
        "import medrobust  # the package in the repository that made this model\n\n"
        f'model = medrobust.load("{place}")  # this folder, wherever it lies; checks the hash of the weights\n'
        "logits = model(images)  # images float32 n×C×H×W in [0, 1]; resized and normalised inside\n"
        "names = [model.classes[k] for k in logits.argmax(1)]\n\n"
        f'answers = medrobust.predict(images, "{place}")  # with uncalibrated probabilities; takes a guard\n'
        "```",
        f"Give it square {colours}images, prepared like those it learned from (docs/data.md of that repository).",
        "**Meant for** research: to compare defences, attacks, detectors and explanations on the data below.",
        "**Not meant for** diagnosis, triage or any other decision about a patient; nor for images of other "
        "scanners, protocols or populations than those below: nothing was measured on them.",
    ]


def _data(subject: Subject) -> list[str]:
    run, header = subject.run, subject.run.header
    counts, said = split_table(run), "".join(f" {line[0].upper()}{line[1:]}." for line in audit_words(run))
    licence = (
        "The licence on top of this card is that of the images, from which the weights were learned."
        if licence_id(str(header.get("licence", "")))
        else "No licence stands on top of this card: that of the images is none that the Hub has a name for."
    )
    size = (
        f"{header.get('images')} images of {header.get('patients')} patients, {header.get('image_size')} pixels."
    )
    return [
        "## Data",
        *([size, *data_text(run), licence] if header else ["No record of the data was found."]),
        *([_untitled(counts)] if counts.rows else []),
        f"Audit of the split: **{run.audit.get('verdict', 'missing')}**.{said}",
    ]


def _training(subject: Subject) -> list[str]:
    run, params = subject.run, subject.card.get("params", {})
    seconds = run.train.get((subject.backbone, subject.regime), {}).get("seconds")
    weights = str(params.get("model", {}).get("weights"))
    start = STARTS.get(weights, "those of a local file")
    if subject.regime == "adv":
        start = f"those of the clean model (sha256 `{params.get('clean')}`), whose own were {start}"
    took = f" It took {seconds:.0f} s." if seconds is not None else ""
    settings = {name: dict(values) for name, values in params.items() if isinstance(values, dict)}
    if weights not in STARTS and "model" in settings:
        settings["model"]["weights"] = Path(weights).name  # where it lay is nothing to hand on
    return [
        "## Training",
        f"{TRAINING[subject.regime].capitalize()} training, seed {subject.card.get('seed')}. "
        f"Weights at its start: {start}.{took}",
        "Hyper-parameters that the search chose:",
        _untitled(tuning_table(run)),
        "Every setting:",
        f"```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}```",
    ]


def _evaluation(subject: Subject) -> list[str]:
    run, confidence = subject.run, subject.confidence
    full = backbone_table(run, subject.backbone, confidence)
    rows = [row[1:] for row in full.rows if row[0] == TRAINING[subject.regime]]
    parts = ["## Evaluation", subject.own(clean_table(run, confidence)).markdown(), *_confusion(subject)]
    for name in run.suites:
        table, suite = subject.own(attack_table(run, name, confidence)), subject.suites[name]
        attacks = "; ".join(_attack(entry) for entry in suite.attacks)
        parts += [f"### {table.title}", f"Norm {suite.norm}. Attacks: {attacks}.", _untitled(table)]
    targeted = [subject.own(table) for table in targeted_tables(run, confidence)]
    parts += [table.markdown() for table in targeted if table.rows]
    return [*parts, Table("All numbers", full.columns[1:], rows, full.note).markdown()]


def _attack(entry: dict[str, Any]) -> str:
    """An attack of params.yaml in words; what is not named has the default of its class."""
    settings = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "name")
    return f"{entry['name']} ({settings})" if settings else str(entry["name"])


def _confusion(subject: Subject) -> list[str]:
    answers = subject.run.confusion.get((subject.backbone, subject.regime))
    if answers is None:
        return []
    names, counts = subject.card["classes"], answers.value_counts(["actual", "predicted"])
    rows = [[name, *(str(counts.get((name, other), 0)) for other in names)] for name in names]
    return [Table("Confusion matrix, clean images", ["actual \\ predicted", *names], rows).markdown()]


def _limits(subject: Subject) -> list[str]:
    run = subject.run
    verdicts = [f"{suite} **{run.verdict_of(subject.backbone, subject.regime, suite)}**" for suite in run.suites]
    lines = [
        f"Checklist of the attacks, by suite: {', '.join(verdicts)}.",
        "Robust accuracy is an upper bound: a stronger attack can only lower it. Norms and radii that stand in no "
        "table above, and changes of another kind (rotation, blur, another scanner), were not tried.",
        "The intervals tell what the number of test patients leaves open, not what other data would give.",
    ]
    failed = subject.own(checks_table(run), "Checks that did not pass")
    return [
        "## How far to believe it",
        "\n".join(f"- {line}" for line in lines),
        *([failed.markdown()] if failed.rows else []),
    ]


def _origin(subject: Subject) -> list[str]:
    card, lineage = subject.card, subject.run.lineage
    stored = lineage.output(f"data/checkpoints/{subject.backbone}/{subject.regime}") if lineage else None
    hashes = {"weights, sha256": "sha256", "images, sha256": "data", "split, hash of its table": "split"}
    lines = [f"{name}: `{card.get(key)}`" for name, key in hashes.items()]
    lines += [f"commits of the repository that have it: `git log -S {stored} -- dvc.lock`"] if stored else []
    lines += [", ".join(f"{name} {version}" for name, version in card.get("versions", {}).items())]
    return ["## Origin", "\n".join(f"- {line}" for line in lines if line)]


def _untitled(table: Table) -> str:
    return table.markdown().partition("\n\n")[2]
