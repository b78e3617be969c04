"""The lines at the top of the report: which models were trained on which data."""

from pathlib import Path
from typing import Any

from medrobust.report.run import REGIMES, Run

#: Initial weights, by `weights` of a backbone's block; anything else is a file.
STARTS = {"none": "random weights", "pretrained": "timm's pretrained weights"}
#: Trained layers, by `trainable` of the block.
PARTS = {"all": "all layers", "head": "the head alone"}
#: Sources of synthetic images.
SYNTHETIC = ("phantom",)


def summary_lines(run: Run, strategy: str) -> list[str]:
    """The data, the backbones with their initial weights, and the radius of adversarial training.

    Args:
        run: the results.
        strategy: of the split, as params.yaml has it.
    """
    if not run.header:
        return ["No prepared data of this run was found."]
    return [_data(run.header, strategy), *_backbones(run)]


def _data(header: dict[str, Any], strategy: str) -> str:
    synthetic = header.get("source") in SYNTHETIC
    what = ("synthetic images", "simulated patients") if synthetic else ("images", "patients")
    patients = f"of {header['patients']} {what[1]}" if header.get("patients") else "of unknown patients"
    line = (
        f"{header.get('images')} {what[0]} {patients} ({header.get('source')}, {header.get('image_size')} "
        f"pixels), split by {strategy}."
    )
    return f"{line} No scanner made them: no number here says anything about real patients." if synthetic else line


def _backbones(run: Run) -> list[str]:
    """A sentence per way of training backbones, one for the radius, and one for backbones without a checkpoint."""
    ways: dict[str, list[str]] = {}
    unknown = []
    for backbone in run.backbones:
        cards = (run.training.cards.get((backbone, regime), {}) for regime in REGIMES)
        if model := next((card["params"]["model"] for card in cards if card), None):
            start = STARTS.get(model["weights"], f"the weights in {Path(model['weights']).name}")
            last = model["trainable"].removeprefix("last:")
            part = PARTS.get(model["trainable"], f"the last {last} blocks and the head")
            named = f"{backbone} (timm's {model['timm']}, {model['image_size']} pixels)"
            ways.setdefault(f"{start}, {part}", []).append(named)
        else:
            unknown.append(backbone)
    lines = [f"Trained from {way}: {', '.join(named)}." for way, named in ways.items()]
    if radii := sorted(set(run.training_eps().values())):
        lines.append(f"Then trained adversarially, at ε = {' and '.join(f'{eps:g}' for eps in radii)}.")
    if unknown:
        lines.append(f"No checkpoint of {', '.join(unknown)} belongs to this run.")
    return [" ".join(lines)]
