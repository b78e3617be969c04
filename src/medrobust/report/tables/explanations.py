"""The section on explanations: the table of drift, and pictures with captions for clinicians."""

from pathlib import Path
from typing import Any

from medrobust.report.collect import Reader
from medrobust.report.run import REGIMES, Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table, number, with_interval
from medrobust.report.templates import paragraphs, table_note

KINDS = {"gradcam": "Grad-CAM", "saliency": "input gradient"}
#: Measures of drift, in the order of the table's columns.
MEASURES = ("iou", "iou_same_class", "iou_noise", "rank", "rank_noise", "inside_clean", "inside_attacked")


def read_explanations(run: Run, metrics: Path, backbones: list[str]) -> None:
    """Put the record of every explained model into `run.explain`, and what is missing into `run.missing`."""
    reader = Reader(run)
    for model in ((backbone, regime) for backbone in backbones for regime in REGIMES):
        path = metrics / "explain" / f"{'-'.join(model)}.json"
        if record := reader.metrics(path, run.hashes.of_all_suites(model)):
            run.explain[model] = record


def explanation_pictures(run: Run, plots: Path) -> dict[str, Path]:
    """`<backbone>-<regime>-<picture>` -> PNG file below `plots`, if it is there and belongs to the run."""
    reader, found = Reader(run), {}
    for model, record in run.explain.items():
        for name in record["captions"]:
            path = plots / "explain" / "-".join(model) / f"{name}.png"
            if reader.usable(path):
                found[f"{'-'.join(model)}-{name}"] = path
    return found


def explanation_captions(run: Run) -> dict[str, str]:
    """The caption of each picture, by its name."""
    return {
        f"{'-'.join(model)}-{name}": f"{model[0]}, {TRAINING[model[1]]} training. {words}"
        for model, record in run.explain.items()
        for name, words in record["captions"].items()
    }


def explanation_folds(run: Run) -> dict[str, list[str]]:
    """Title -> names of the pictures that open on demand, one entry per backbone."""
    folds: dict[str, list[str]] = {}
    shown = explanation_example(run)
    for model, record in run.explain.items():
        names = [f"{'-'.join(model)}-{name}" for name in record["captions"]]
        folds.setdefault(f"Pictures of {model[0]}", []).extend(name for name in names if name not in shown)
    return {title: names for title, names in folds.items() if names}


def explanation_example(run: Run) -> list[str]:
    """The picture that is always shown: the first model's image that the smallest attack fools."""
    known = ("-".join(model) for model, record in run.explain.items() if "fooled-1" in record["captions"])
    return [f"{name}-fooled-1" for name in known][:1]


def drift_table(run: Run, confidence: float) -> Table:
    """How far the attack moves the maps of each model, compared with noise of the same size."""
    rows = []
    for (backbone, regime), record in run.explain.items():
        for kind, name in KINDS.items():
            if kind not in record:
                rows.append([backbone, TRAINING[regime], name, "none", *[NONE] * 8])
                continue
            part = record[kind]
            rows.append([
                backbone, TRAINING[regime], name, f"{record['n']} ({record['changed']})",
                *(_measure(record, part, column) for column in MEASURES),
                number(record["region_share"]),
            ])  # fmt: skip
    columns = ["model", "training", "map", "n (prediction changed)"]
    columns += ["overlap", "overlap, same class", "overlap, noise", "rank correlation", "rank correlation, noise"]
    columns += ["inside, clean", "inside, attacked", "region"]
    note = table_note("drift", confidence=confidence) if rows else ""
    return Table("Drift of the maps under attack", columns, rows, note).with_warning()


def _measure(record: dict[str, Any], part: dict[str, Any], name: str) -> str:
    """A measure with its interval, and the number of images that have it if some have none (a map of zeros)."""
    count = part.get(f"{name}_n", record["n"])
    return with_interval(part, name) + (f", n {count}" if 0 < count < record["n"] else "")


def explanation_text(run: Run) -> list[str]:
    """What colours and numbers mean, what they do not mean, and what is missing."""
    if not run.explain:
        return []
    explained = {backbone for backbone, _ in run.explain}
    return paragraphs(
        "medrobust.report.tables", "explanations.txt.jinja", first=next(iter(run.explain.values())),
        grids=sorted({f"{g[0]}×{g[1]}" for record in run.explain.values() if (g := record.get("grid"))}),
        explained=run.explain, training=TRAINING, left=[name for name in run.backbones if name not in explained],
    )  # fmt: skip
