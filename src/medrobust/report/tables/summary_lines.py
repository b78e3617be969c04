"""What was trained on what, the lines with which the report opens: from the data's header and models' cards."""

from pathlib import Path
from typing import Any

from medrobust.report.collect import REGIMES, Run

#: Where training started, by `weights` of a backbone's block; anything else is a file.
STARTS = {"none": "random weights", "pretrained": "timm's pretrained weights"}
#: What was trained, by `trainable` of the same.
PARTS = {"all": "all layers", "head": "the head alone"}
#: Sources whose images no scanner made.
SYNTHETIC = ("phantom",)


def opening(run: Run, strategy: str) -> list[str]:
    """The data, the backbones and their start, and the radius of adversarial training.

    Args:
        run: the results.
        strategy: of the split, as params.yaml has it.
    """
    if not run.header:
        return ["No prepared data of this run was found."]
    return [_data(run.header, strategy), *_backbones(run)]


def _data(header: dict[str, Any], strategy: str) -> str:
    made = header.get("source") in SYNTHETIC
    what = ("synthetic images", "simulated patients") if made else ("images", "patients")
    whose = f"of {header['patients']} {what[1]}" if header.get("patients") else "of unknown patients"
    line = (
        f"{header.get('images')} {what[0]} {whose} ({header.get('source')}, {header.get('image_size')} pixels), "
        f"split by {strategy}."
    )
    return f"{line} No scanner made them: no number here says anything about real patients." if made else line


def _backbones(run: Run) -> list[str]:
    """A line for each way in which backbones were trained, one for the radius, one for what is not known."""
    ways: dict[str, list[str]] = {}
    unknown = []
    for backbone in run.backbones:
        cards = (run.cards.get((backbone, regime), {}) for regime in REGIMES)
        if model := next((card["params"]["model"] for card in cards if card), None):
            named = f"{backbone} (timm's {model['timm']}, {model['image_size']} pixels)"
            ways.setdefault(f"{_start(model['weights'])}, {_part(model['trainable'])}", []).append(named)
        else:
            unknown.append(backbone)
    lines = [f"Trained from {way}: {', '.join(named)}." for way, named in ways.items()]
    if radii := sorted(set(run.trained_at().values())):
        lines.append(f"Then adversarially, at ε = {' and '.join(f'{eps:g}' for eps in radii)}.")
    if unknown:
        lines.append(f"No checkpoint of this run says how {', '.join(unknown)} came to be.")
    return [" ".join(lines)]


def _start(weights: str) -> str:
    return STARTS.get(weights, f"the weights in {Path(weights).name}")


def _part(trainable: str) -> str:
    last = trainable.removeprefix("last:")
    return PARTS.get(trainable, f"the last {last} blocks and the head")
