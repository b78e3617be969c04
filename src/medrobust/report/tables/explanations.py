"""The section on explanations: the table of drift, and pictures with captions for clinicians."""

from pathlib import Path
from typing import Any

from medrobust.report.collect import Reader
from medrobust.report.run import REGIMES, Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table, number, with_interval

KINDS = {"gradcam": "Grad-CAM", "saliency": "input gradient"}
REGIONS = {"foreground": "the brighter part of the image", "outlined": "the region that the publisher marked"}
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
    """`<backbone>-<regime>-<picture>` -> PNG file, for pictures that are there and belong to the run.

    Args:
        run: the results, with the records of explanations.
        plots: the folder of all stages' plots.
        sheet: images per class on the page; 0 also leaves out pictures that show an image of the data.
    """
    reader, found = Reader(run), {}
    for model, record in run.explain.items():
        for name in record["captions"]:
            path = plots / "explain" / "-".join(model) / f"{name}.png"
            if (sheet or name in ABSTRACT) and reader.usable(path):
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
    note = (
        "Overlap: IoU of the highest values of the clean and of the attacked map, each for the class that the "
        "model predicts there. Same class: both maps for the class predicted on the clean image. Noise: random "
        "noise of the attack's size in place of the attack. Rank correlation: Spearman's, over all pixels. "
        "Inside: share of the map within the region. Region: the region's share of the image, which is the value "
        "of a uniform map. n after a value: the number of images that have one, if not all do (a map of zeros has "
        f"none). Brackets are {confidence:.0%} intervals over whole patients."
    )
    return Table("Drift of the maps under attack", columns, rows, note if rows else "").with_warning(confidence)


def _measure(record: dict[str, Any], part: dict[str, Any], name: str) -> str:
    """A measure with its interval, and the number of images that have it if some have none (a map of zeros)."""
    count = part.get(f"{name}_n", record["n"])
    return with_interval(part, name) + (f", n {count}" if 0 < count < record["n"] else "")


def explanation_text(run: Run) -> list[str]:
    """What colours and numbers mean, what they do not mean, and what is missing."""
    if not run.explain:
        return []
    first: dict[str, Any] = next(iter(run.explain.values()))
    grids = sorted({f"{g[0]}×{g[1]}" for record in run.explain.values() if (g := record.get("grid"))})
    cells = (
        f"Grad-CAM has a resolution of {' or '.join(grids)} cells: finer detail means nothing. " if grids else ""
    )
    lines = [
        f"Orange marks what the prediction depends on; each map is scaled to its own largest value. {cells}The "
        "input gradient shows the single pixels whose change would move the prediction most. Each map is for the "
        "class that the model predicts on the image below it. The last picture of a panel is the attack's change, "
        "amplified by the factor above it.",
        "Drift measures whether the map of an image stays the same under a change that is hard to see "
        f"({first['suite']}, ε {first['eps']:g}). An overlap of 1 means the same place; two unrelated maps have "
        f"{first['unrelated_iou']:.2f}. Compare it with the overlap under random noise of the same size: if noise "
        "moves a map as far, its drift says little about the attack.",
        "A map is no proof. It does not show that the model reasons as a clinician does. A plausible map can "
        f"belong to a wrong prediction, and a map within {REGIONS[first['region']]} can mark the wrong structure "
        "there.",
    ]
    for (backbone, regime), record in run.explain.items():
        lines += [f"{backbone}, {TRAINING[regime]} training: {why}." for why in record["missing"].values()]
    if left := [name for name in run.backbones if name not in {backbone for backbone, _ in run.explain}]:
        lines.append(f"Not explained (models.*.explain in params.yaml): {', '.join(left)}.")
    return lines
