"""A model card for each checkpoint, in the Hugging Face Hub's format (YAML metadata, then Markdown).

Format: Hugging Face Hub documentation, "Model Cards" and its `model-index`; content after Mitchell et al. 2019,
"Model Cards for Model Reporting". A card holds attack results, which are later than the checkpoint: so the
report writes it, and the checkpoint's folder stays as training left it.
"""

from typing import Any

import yaml

from medrobust.report.collect import Run
from medrobust.report.tables import TRAINING, Table, attack_table, backbone_table, clean_table

#: Clean metrics of the index, by their names on the Hub.
INDEXED = {"accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "macro_f1": "f1", "auroc": "roc_auc"}


def model_cards(run: Run, confidence: float) -> dict[str, str]:
    """`<backbone>-<regime>` -> the text of its README.md, for every checkpoint that was found."""
    return {
        f"{backbone}-{regime}": _card(run, backbone, regime, card, confidence)
        for (backbone, regime), card in run.cards.items()
        if card
    }


def _card(run: Run, backbone: str, regime: str, card: dict[str, Any], confidence: float) -> str:
    meta = yaml.safe_dump(_metadata(run, backbone, regime, card), sort_keys=False, allow_unicode=True)
    header, params = run.header, card.get("params", {})
    training = f"{TRAINING[regime]} training, seed {card.get('seed')}"
    lines = [
        f"---\n{meta}---", f"# {backbone}, {TRAINING[regime]} training", "",
        f"An image classifier ({card['model']['timm']}, {card['model']['image_size']} pixels; classes: "
        f"{', '.join(card['classes'])}) from {training}.", "",
        "**For research. It is no medical device, and no number below says that it is safe to use on patients.**",
        "", "## Use", "",
        "```python", "import medrobust", f'model = medrobust.load("models/{backbone}/{regime}")',
        "logits = model(images)   # float32, n×C×H×W, values in [0, 1]; sizes and channels are adapted inside",
        "```", "", "## Data", "",
        f"{header.get('images')} images of {header.get('patients')} patients from `{header.get('source')}`. "
        f"Licence: {header.get('licence')}. Cite: {header.get('citation')}. "
        f"Checked against what the publisher says: {header.get('verified', 'nothing')}.", "",
        *_split_lines(run), "", "## Training", "",
        *(f"- {block}: `{_inline(values)}`" for block, values in params.items() if isinstance(values, dict)),
        "", "## Results", "",
        _only(clean_table(run, confidence), backbone, regime).markdown(),
        *(_only(attack_table(run, suite, confidence), backbone, regime).markdown() for suite in run.suites),
        _regime_only(backbone_table(run, backbone, confidence), regime).markdown(),
        "## How far to believe it", "", *_limits(run, backbone, regime), "", "## Origin", "",
        f"- weights, sha256: `{card.get('sha256')}`", f"- images, sha256: `{card.get('data')}`",
        f"- split, sha256: `{card.get('split')}`",
        *(f"- {name} {version}" for name, version in card.get("versions", {}).items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _metadata(run: Run, backbone: str, regime: str, card: dict[str, Any]) -> dict[str, Any]:
    record = run.train.get((backbone, regime), {})
    metrics = [
        {"type": hub, "name": f"{name} (clean)", "value": record[name]}
        for name, hub in INDEXED.items()
        if record.get(name) is not None
    ]
    for suite in run.suites:
        for eps, value in run.attack.get((backbone, regime, suite), {}).get("robust_accuracy", {}).items():
            metrics.append({"type": "accuracy", "name": f"robust accuracy ({suite}, eps {eps})", "value": value})
    task = {"type": "image-classification", "name": "Image classification"}
    source = str(run.header.get("source"))
    result = {"task": task, "dataset": {"type": source, "name": source, "split": "test"}, "metrics": metrics}
    return {
        "library_name": "medrobust",
        "pipeline_tag": "image-classification",
        "tags": ["medical-imaging", "adversarial-robustness", card["model"]["timm"]],
        "metrics": sorted({metric["type"] for metric in metrics}),
        "model-index": [{"name": f"{backbone}-{regime}", "results": [result] if metrics else []}],
    }


def _split_lines(run: Run) -> list[str]:
    parts = [f"{name} {part['images']} of {part['patients']} patients" for name, part in run.split.items()]
    return [f"Split: {'; '.join(parts)}. Audit of the split: **{run.audit.get('verdict', 'missing')}**."]


def _limits(run: Run, backbone: str, regime: str) -> list[str]:
    verdicts = [f"{suite}: **{run.verdict_of(backbone, regime, suite)}**" for suite in run.suites]
    reasons = [f"- audit: {reason}" for reason in run.audit.get("reasons", [])]
    absent = [name for name in run.classes() if not run.split.get("test", {}).get(name)]
    lines = [f"- checklist of the attacks, by suite: {', '.join(verdicts)}", *reasons]
    lines += [f"- no test image of: {', '.join(absent)}"] if absent else []
    return [*lines, "- robust accuracy is an upper bound: a stronger attack can only lower it"]


def _only(table: Table, backbone: str, regime: str) -> Table:
    rows = [row for row in table.rows if row[:2] == [backbone, TRAINING[regime]]]
    return Table(table.title, table.columns, rows, table.note)


def _regime_only(table: Table, regime: str) -> Table:
    rows = [row for row in table.rows if row[0] == TRAINING[regime]]
    return Table(table.title, table.columns, rows, table.note)


def _inline(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if not isinstance(value, dict))
