"""Put the report together: verdicts first, then data, results, ensemble, training, cost, how to reproduce."""

import re
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from medrobust.report import tables
from medrobust.report.collect import Run
from medrobust.report.detection import detection_tables
from medrobust.report.tables import Table

TONES = {"clean": "good", "no problem found": "good", "suspect": "doubt", "leaking": "bad", "invalid": "bad"}
#: Title of the section that prints the checklist.
DOUBTS = "Can these numbers be believed?"
PACKAGES = ("medrobust", "torch", "torchvision", "timm", "kornia", "torchattacks", "optuna", "dvc")


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str
    title: str
    tables: list[Table] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """What the report needs of params.yaml."""

    title: str
    seed: int
    strategy: str
    eps: float
    confidence: float


def sections(run: Run, figures: dict[str, str], settings: Settings) -> list[Section]:
    """Every section in the order in which a reader needs it."""
    header = run.header
    text = [f"Source {header.get('source')}; licence: {header.get('licence')}; cite: {header.get('citation')}."]
    attacks = [tables.attack_table(run, suite, settings.confidence) for suite in run.suites]
    clean = tables.clean_table(run, settings.confidence)
    guarded = detection_tables(run, settings.confidence)
    curves = [figures[f"robust_accuracy_{suite}"] for suite in run.suites if f"robust_accuracy_{suite}" in figures]
    return [
        Section("data", "Data and split", [tables.split_table(run)], text=text),
        Section("clean", "Clean results", [clean, tables.recall_table(run)]),
        Section("attacks", "Under attack", attacks, curves),
        Section("checks", DOUBTS, [tables.verdicts_table(run), tables.checks_table(run)]),
        *([Section("detection", "Detection", guarded)] if guarded else []),
        Section("ensemble", "Ensemble", [tables.weights_table(run)]),
        Section("confusion", "Confusion matrices", figures=[figures[k] for k in ("confusion",) if k in figures]),
        Section(
            "training", "Tuning and training", [tables.tuning_table(run)],
            [figures[k] for k in ("training",) if k in figures],
        ),
        Section("cost", "Cost", [tables.cost_table(run)]),
    ]  # fmt: skip


def verdicts(run: Run) -> list[dict[str, Any]]:
    """The cards on top: the split, the attacks, and what is missing."""
    audit = run.audit.get("verdict", "missing")
    cards = [{"of": "Audit of the split", "verdict": audit, "reasons": run.audit.get("reasons", [])}]
    failed = sorted({check for record in run.checks.values() for check in record.get("means", {})})
    reasons = [f"did not pass everywhere: {', '.join(failed)} (listed under “{DOUBTS}”)"] if failed else []
    cards.append({"of": "Checklist of the attacks", "verdict": run.verdict(), "reasons": reasons})
    if run.missing:
        cards.append({"of": "Missing results", "verdict": f"{len(run.missing)} files", "reasons": run.missing[:8]})
    return [{**card, "tone": TONES.get(str(card["verdict"]), "bad")} for card in cards]


def render_html(run: Run, figures: dict[str, Path], settings: Settings) -> str:
    """The self-contained page: styles and SVG figures are part of the file."""
    from jinja2 import Environment
    from markupsafe import Markup

    drawn = {name: Markup(inline_svg(path.read_text(), name)) for name, path in figures.items()}
    template = files("medrobust.report").joinpath("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(template).render(
        title=settings.title, summary=summary(run, settings), verdicts=verdicts(run),
        sections=sections(run, dict(drawn), settings), reproduce=reproduce(settings),
    )  # fmt: skip


def render_markdown(run: Run, settings: Settings) -> str:
    """The tables for a pull request."""
    lines = [f"# {settings.title}", "", summary(run, settings), ""]
    for card in verdicts(run):
        lines += [
            f"**{card['of']}: {card['verdict']}**",
            "",
            *(f"- {reason}" for reason in card["reasons"]),
            "",
        ]
    for section in sections(run, {}, settings):
        if section.tables:
            lines += [f"## {section.title}", "", *(table.markdown() for table in section.tables)]
    return "\n".join(lines)


def summary(run: Run, settings: Settings) -> str:
    """One sentence: what was trained on what."""
    header = run.header
    return (
        f"{', '.join(run.backbones)} on {header.get('images')} images of {header.get('patients')} patients "
        f"({header.get('source')}, {header.get('image_size')} pixels, split by {settings.strategy}), "
        f"adversarially trained at ε = {settings.eps:g}."
    )


def reproduce(settings: Settings) -> str:
    """Commands, seed and versions."""
    versions = "\n".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"git checkout <the commit of this report>\nmake repro\n\nseed {settings.seed}\n{versions}"


def inline_svg(svg: str, name: str) -> str:
    """An SVG for the inside of a page: no XML prologue, and ids that do not clash with other figures."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'\1="#{name}-\2"', body)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
