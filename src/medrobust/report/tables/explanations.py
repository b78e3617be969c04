"""The report's part on explanations: the table of drift, and the pictures with words that a clinician reads."""

from pathlib import Path
from typing import Any

from medrobust.report.collect import REGIMES, Reader, Run
from medrobust.report.tables.cells import NONE, Table, number, with_interval
from medrobust.report.tables.models import TRAINING

KINDS = {"gradcam": "Grad-CAM", "saliency": "input gradient"}
REGIONS = {"foreground": "the brighter part of the image", "outlined": "the region that the publisher outlined"}
#: Measures of drift, in the order of the table's columns.
MEASURES = ("iou", "iou_same_class", "iou_noise", "rank", "rank_noise", "inside_clean", "inside_attacked")
#: Pictures that show no image of the data.
ABSTRACT = ("surface", "features")


def read_explanations(run: Run, metrics: Path, backbones: list[str]) -> None:
    """Put the record of every explained model into `run.explain`, and what is missing into `run.missing`."""
    reader = Reader(run)
    for model in ((backbone, regime) for backbone in backbones for regime in REGIMES):
        if record := reader.metrics(metrics / "explain" / f"{'-'.join(model)}.json"):
            run.explain[model] = record


def explanation_pictures(run: Run, plots: Path, sheet: int) -> dict[str, Path]:
    """`<backbone>-<regime>-<picture>` -> PNG file, of pictures that are there and belong to the run.

    Args:
        run: with its records of explanations.
        plots: the folder of all stages' plots.
        sheet: images of the data on the page; 0 = none, then pictures that show one are left out too.
    """
    reader, found = Reader(run), {}
    for model, record in run.explain.items():
        for name in record["captions"]:
            path = plots / "explain" / "-".join(model) / f"{name}.png"
            if (sheet or name in ABSTRACT) and reader.usable(path):
                found[f"{'-'.join(model)}-{name}"] = path
    return found


def explanation_captions(run: Run) -> dict[str, str]:
    """What stands above each picture, by its name."""
    return {
        f"{'-'.join(model)}-{name}": f"{model[0]}, {TRAINING[model[1]]} training. {words}"
        for model, record in run.explain.items()
        for name, words in record["captions"].items()
    }


def explanation_folds(run: Run) -> dict[str, list[str]]:
    """Title -> names of pictures, one entry a backbone, that open on demand."""
    folds: dict[str, list[str]] = {}
    shown = explanation_example(run)
    for model, record in run.explain.items():
        names = [f"{'-'.join(model)}-{name}" for name in record["captions"]]
        folds.setdefault(f"Pictures of {model[0]}", []).extend(name for name in names if name not in shown)
    return {title: names for title, names in folds.items() if names}


def explanation_example(run: Run) -> list[str]:
    """The pictures that stand open: of the first model that has one, the image that the smallest attack fools."""
    known = ("-".join(model) for model, record in run.explain.items() if "fooled-1" in record["captions"])
    return [f"{name}-fooled-1" for name in known][:1]


def drift_table(run: Run, confidence: float) -> Table:
    """How far the attack moves the maps of each model, beside noise of the same size."""
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
    columns = [
        "model",
        "training",
        "map",
        "n (answer changed)",
        "overlap",
        "overlap, same class",
        "overlap, noise",
    ]
    columns += ["rank correlation", "rank correlation, noise", "inside, clean", "inside, attacked", "region"]
    note = (
        "Overlap: IoU of the top of the clean and the attacked map, each for the class that the model answers; "
        "same class: both for the class of the clean answer; noise: random noise of the attack's size. Rank "
        "correlation: Spearman's, of all pixels. Inside: share of the map in the region; region: its share of the "
        "image, what an even map would have there. n after a value: images that have one, where not all do (a map "
        f"of zeros has none). Brackets are {confidence:.0%} intervals over whole patients."
    )
    return Table("Drift of the maps under attack", columns, rows, note if rows else "").warned(confidence)


def _measure(record: dict[str, Any], part: dict[str, Any], name: str) -> str:
    """A measure with its interval, and of how many images it is where some have none (a map of zeros)."""
    count = part.get(f"{name}_n", record["n"])
    return with_interval(part, name) + (f", n {count}" if 0 < count < record["n"] else "")


def explanation_text(run: Run) -> list[str]:
    """What colours and numbers mean, what they do not, and what is missing."""
    if not run.explain:
        return []
    first: dict[str, Any] = next(iter(run.explain.values()))
    grids = sorted({f"{g[0]}×{g[1]}" for record in run.explain.values() if (g := record.get("grid"))})
    cells = (
        f"Grad-CAM sees {' or '.join(grids)} cells: no detail finer than a cell means anything. " if grids else ""
    )
    lines = [
        f"Orange shows what the answer hung on; each map is scaled to its own largest value. {cells}The input "
        "gradient shows the single pixels whose change would move the answer most. Each map speaks for the class "
        "that the model answers for the image it lies on. The last picture of a panel is what the attack changed, "
        "drawn many times too strong (the factor stands above it).",
        "Drift asks whether the map of an image survives a change that is hard to see "
        f"({first['suite']}, ε {first['eps']:g}). An overlap of 1 is the same place, {first['unrelated_iou']:.2f} "
        "is what two unrelated maps share. Compare it with the overlap under mere noise of the same size: a map "
        "that noise moves as far says little about the attack.",
        "A map is no proof. It does not say that the model reasons as a reader does; a sensible map can belong to "
        f"a wrong answer; and a map inside {REGIONS[first['region']]} can look at the wrong thing there.",
    ]
    for (backbone, regime), record in run.explain.items():
        lines += [f"{backbone}, {TRAINING[regime]} training: {why}." for why in record["missing"].values()]
    if left := [name for name in run.backbones if name not in {backbone for backbone, _ in run.explain}]:
        lines.append(f"Not explained (models.*.explain in params.yaml): {', '.join(left)}.")
    return lines
