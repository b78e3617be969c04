"""Put the report together: verdicts first, then the results in one look, and what stands behind them."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from medrobust.core.intervals import FEW_PATIENTS
from medrobust.report.charts import models as charts
from medrobust.report.charts.detection import detection_charts
from medrobust.report.charts.models import Chart, Matrix
from medrobust.report.collect import Run
from medrobust.report.provenance.commit import Commit
from medrobust.report.tables import models as tables
from medrobust.report.tables.calibration import calibration_table, recall_table
from medrobust.report.tables.cells import Table, no_width
from medrobust.report.tables.data import audit_table, audit_words, data_text
from medrobust.report.tables.detection import detection_tables
from medrobust.report.tables.ensemble import Grid, ensemble_tables, ensemble_text, transfer_grids
from medrobust.report.tables.explanations import (
    drift_table,
    explanation_captions,
    explanation_example,
    explanation_folds,
    explanation_text,
)
from medrobust.report.tables.summary_lines import opening
from medrobust.report.tables.targeted import targeted_tables

#: Words of the checklist, in tables too; "clean" is one of the audit alone, in tables it is a training.
WORDS = {"no problem found": "good", "suspect": "doubt", "unchecked": "doubt", "invalid": "bad", "missing": "bad"}
TONES = {**WORDS, "clean": "good", "leaking": "bad"}
#: Title of the section that prints the checklist.
DOUBTS = "Can these numbers be believed?"
#: What stands above a picture.
CAPTIONS = {
    "classes": "Images of each class: the middle slice of evenly spaced patients",
    "pairs": "Audit: the nearest images of different splits",
}
#: Files that a card names before it only counts.
NAMED = 8


@dataclass(frozen=True)
class Section:
    """A part of the page; `pictures` are names of figures, shown as they are, `folds` such as open on demand."""

    name: str
    title: str
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    folds: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What the report needs of params.yaml and of git; `norms` is suite -> its norm."""

    title: str
    seed: int
    strategy: str
    confidence: float
    norms: Mapping[str, str]
    commit: Commit | None = None


def sections(run: Run, settings: Settings) -> list[Section]:
    """Every section in the order in which a reader needs it; one without content is left out."""
    confidence, norms = settings.confidence, settings.norms
    curves = [charts.robust_curve(run, suite, norms[suite]) for suite in run.suites]
    named = {model: tables.backbone_table(run, model, confidence) for model in (*run.backbones, "ensemble")}
    found = [
        Section(
            "glance", "At a glance", [tables.short_table(run)], text=_how_to_read(run, confidence)
        ),
        Section(
            "data", "Data", [tables.split_table(run), audit_table(run)], pictures=["classes", "pairs"],
            text=data_text(run),
        ),
        Section("tuning", "Tuning", [tables.tuning_table(run), *tables.trial_tables(run)]),
        Section("training", "Training", charts=charts.training_charts(run)),
        Section("clean", "Clean results", [tables.clean_table(run, confidence)]),
        Section(
            "attacks", "Under attack", [
                *(tables.attack_table(run, suite, confidence) for suite in run.suites),
                *targeted_tables(run, confidence),
                recall_table(run, confidence), calibration_table(run, confidence),
            ],
            [curve for curve in curves if curve],
        ),
        Section("backbones", "Every number, by backbone", list(named.values())),
        Section(
            "checks", DOUBTS, [tables.verdicts_table(run), tables.checks_table(run)]
        ),
        Section("detection", "Detection", detection_tables(run, confidence), detection_charts(run)),
        Section(
            "explanations", "Explanations", [drift_table(run, confidence)], pictures=explanation_example(run),
            text=explanation_text(run), folds=explanation_folds(run),
        ),
        Section("confusion", "Confusion matrices, clean test images", matrices=charts.matrices(run)),
        Section(
            "ensemble", "Ensemble", ensemble_tables(run, confidence), grids=transfer_grids(run),
            text=ensemble_text(run),
        ),
        Section("cost", "Cost", [tables.cost_table(run)]),
        Section("reproduce", "How to reproduce", [origin_table(run)], text=_reproduce_text(run, settings)),
    ]  # fmt: skip
    return [s for s in found if any(t.rows for t in s.tables) or s.charts or s.matrices or s.name == "reproduce"]


def verdicts(run: Run) -> list[dict[str, Any]]:
    """The cards on top: the split, the attacks, and what is missing or of another run."""
    audit = run.audit.get("verdict", "missing")
    cards = [{"of": "Audit of the split", "verdict": audit, "reasons": audit_words(run)}]
    failed = sorted({check for record in run.checks.values() for check in record.get("means", {})})
    reasons = [f"did not pass everywhere: {', '.join(failed)} (listed under “{DOUBTS}”)"] if failed else []
    cards.append({"of": "Checklist of the attacks", "verdict": run.verdict(), "reasons": reasons})
    if run.missing:
        reasons = [*run.missing[:NAMED], *_more(len(run.missing))]
        cards.append({"of": "Missing results", "verdict": f"{len(run.missing)} files", "reasons": reasons})
    if run.foreign:
        by_reason: dict[str, list[str]] = {}
        for path, why in run.foreign.items():
            by_reason.setdefault(why, []).append(path)
        reasons = [
            f"{why}: {paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
            for why, paths in list(by_reason.items())[:NAMED]
        ]
        reasons += [*_more(len(by_reason)), "Their numbers are left out; dvc repro makes them anew."]
        cards.append({"of": "Not of this run", "verdict": f"{len(run.foreign)} files", "reasons": reasons})
    elif run.lineage is None:
        reasons = ["there is no dvc.lock that says which run each file belongs to"]
        cards.append({"of": "Origin of the numbers", "verdict": "not checked", "reasons": reasons})
    return [{**card, "tone": TONES.get(str(card["verdict"]), "bad")} for card in cards]


def render_html(run: Run, pictures: Mapping[str, Path], settings: Settings) -> str:
    """The self-contained page: style, script, data and pictures are part of the file.

    Args:
        run: the results.
        pictures: name -> PNG file, of what sections name.
        settings: what params.yaml says.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    parts = {name: _resource(f"page.{name}") for name in ("html", "css", "js")}
    found = sections(run, settings)
    drawn = {
        "charts": {chart.name: asdict(chart) for section in found for chart in section.charts},
        "words": WORDS,
    }
    # "<" is written as an escape, so that no text of the data can end the script element.
    data = json.dumps(drawn, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"breakable": breakable, "kept_together": kept_together}
    return environment.from_string(parts["html"]).render(
        title=settings.title, opening=opening(run, settings.strategy), verdicts=verdicts(run), sections=found,
        words=WORDS, captions=CAPTIONS | explanation_captions(run), data=Markup(data),
        style=Markup(parts["css"]), script=Markup(parts["js"]),
        pictures={name: _data_uri(path) for name, path in pictures.items()},
    )  # fmt: skip


def render_markdown(run: Run, settings: Settings) -> str:
    """The verdicts, what sections say, and tables, for a pull request."""
    lines = [f"# {settings.title}", ""]
    lines += [part for line in opening(run, settings.strategy) for part in (line, "")]
    for card in verdicts(run):
        reasons = [f"- {reason}" for reason in card["reasons"]]
        lines += [f"**{card['of']}: {card['verdict']}**", "", *reasons, ""]
    for section in sections(run, settings):
        filled = [table for table in section.tables if table.rows]
        if filled:
            lines += [f"## {section.title}", ""]
            lines += [part for line in section.text for part in (line, "")]
            lines += [table.markdown() for table in filled]
    return "\n".join(lines)


def every_table(run: Run, settings: Settings) -> Iterator[Table]:
    """All tables of the report that have rows."""
    return (table for section in sections(run, settings) for table in section.tables if table.rows)


def origin_table(run: Run) -> Table:
    """The hashes by which dvc.lock, and so the history of the repository, knows this run."""
    places = ["data/prepared", "data/split.csv"]
    places += [f"data/checkpoints/{backbone}/{regime}" for backbone, regime in run.cards] + ["data/ensemble"]
    known = [(place, run.lineage.output(place)) for place in places] if run.lineage else []
    note = "The md5 of each in dvc.lock; a commit whose dvc.lock has them has this run."
    return Table("Origin", ["what", "md5"], [[place, md5] for place, md5 in known if md5], note)


def _reproduce_text(run: Run, settings: Settings) -> list[str]:
    """Commit, commands, seed, versions; the commit that holds the results is a later one, and found by a hash."""
    hashes = [row[1] for row in origin_table(run).rows]
    find = (
        [f"The commit that holds these results: git log --oneline -S {hashes[-1]} -- dvc.lock"] if hashes else []
    )
    made = settings.commit.words() if settings.commit else "By which commit is not known: git tells none."
    trained: dict[str, set[str]] = {}
    for card in run.cards.values():
        for name, found in card.get("versions", {}).items():
            trained.setdefault(name, set()).add(found)
    versions = ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in trained.items())
    checked = "Every file that this page reads was checked against dvc.lock: all belong to one run."
    return [
        *([checked] if run.lineage and not run.foreign else []),
        made,
        *find,
        "From a clone: make setup && dvc pull (what is stored), or dvc repro (from the data on).",
        f"Seed {settings.seed}; every other value stands in params.yaml.",
        f"Trained with {versions}." if versions else "No checkpoint was found that says its versions.",
        "The weights lie in models/<model>/<clean or adv>, each beside a model card: README.md.",
        f"Report by medrobust {version('medrobust')}.",
    ]


def _how_to_read(run: Run, confidence: float) -> list[str]:
    said = [
        "Robust accuracy is the share of test images that no attack of the suite fools: an upper bound, never a "
        f"proof. Brackets are {confidence:.0%} intervals over whole patients. Read the verdicts above before any "
        "number.",
        _few(run, confidence),
        no_width(tables.short_table(run).rows, confidence, run.fewest()),
    ]
    return [line for line in said if line]


def _few(run: Run, confidence: float) -> str:
    """That intervals are too narrow where a class has few test patients; empty where none has."""
    counts = {name: run.fewest(name) for name in run.classes()}
    few = {name: count for name, count in counts.items() if count is not None and count < FEW_PATIENTS}
    if not few:
        return ""
    named = ", ".join(f"{name} {count}" for name, count in few.items())
    return (
        f"Classes with fewer than {FEW_PATIENTS} test patients ({named}): with so few an interval of "
        f"{confidence:.0%} holds the truth less often than it says, least where rates are near 0 or 1 "
        "(docs/report.md, Intervals)."
    )


def _more(count: int) -> list[str]:
    return [f"and {count - NAMED} more"] if count > NAMED else []


def breakable(name: str) -> str:
    """A class name that may break before its capitals and after its underscores, as HTML."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[a-z])(?=[A-Z])|(?<=_)", name))


def kept_together(cell: str) -> str:
    """A cell of a table as HTML; its intervals are marked, to be neither torn nor taken for the value."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"\[-?\d[^\]]*\]", r'<span class="ci">\g<0></span>', str(escape(cell))))


def _resource(name: str) -> str:
    return files("medrobust.report.page").joinpath(name).read_text(encoding="utf-8")


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
