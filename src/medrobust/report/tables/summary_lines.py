"""The lines at the top of the report: which models were trained on which data."""

from pathlib import Path

from medrobust.report.run import REGIMES, Run
from medrobust.report.templates import paragraphs

#: Initial weights, by `weights` of a backbone's block; anything else is a file.
STARTS = {
    "none": "random weights",
    "pretrained": "timm's pretrained weights",
    "package": "the pretrained weights of a Python package",
}
#: Trained layers, by `trainable` of the block.
PARTS = {"all": "all layers", "head": "the head alone"}


def summary_lines(run: Run, strategy: str) -> list[str]:
    """The data and the `strategy` of their split; the backbones, their initial weights and training radius."""
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
    radii = [f"{eps:g}" for eps in sorted(set(run.training_eps().values()))]
    return paragraphs(
        "medrobust.report.tables", "summary.txt.jinja", run=run, strategy=strategy, ways=ways, radii=radii,
        unknown=unknown,
    )  # fmt: skip
