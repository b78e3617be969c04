"""The YAML on top of a model card, by which the Hugging Face Hub lists, filters and compares models.

Keys and values: Hugging Face Hub documentation, "Model Cards" (metadata specification, `model-index`, licences).
"""

import re
from collections.abc import Mapping
from typing import Any

from medrobust.report.collect import Run

#: Clean metrics of the index, by their names on the Hub.
INDEXED = {"accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "macro_f1": "f1", "auroc": "roc_auc"}
#: The Hub's identifiers of licences that data sets are published under.
LICENCES = re.compile(
    r"mit|apache-2\.0|cc0-1\.0|cc-by-(2\.0|2\.5|3\.0|4\.0)|cc-by-sa-(3\.0|4\.0)|cc-by-nc-(2\.0|3\.0|4\.0)|cc-by-nd-4\.0"
    r"|cc-by-nc-nd-(3\.0|4\.0)|cc-by-nc-sa-(2\.0|3\.0|4\.0)|cdla-(sharing-1\.0|permissive-[12]\.0)|odc-by|odbl|pddl"
)
#: Verdicts of the audit under which numbers may be compared with those of others.
BELIEVED = ("clean", "suspect")
HUB = "https://huggingface.co/datasets/"


def metadata(run: Run, backbone: str, regime: str, norms: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of one model; what is not known is left out, and what the run's own checks speak against.

    The Hub lists and compares these numbers without the card's verdicts: so none stands here of a split that
    leaks, nor of a suite whose evaluation is invalid or was not checked.

    Args:
        run: what is known of the backbone.
        backbone, regime: which model; its checkpoint's card must be there.
        norms: suite -> its norm.
    """
    card, metrics = run.cards[backbone, regime], _metrics(run, backbone, regime, norms)
    source, url = str(run.header.get("source", "unknown")), str(run.header.get("url", ""))
    published = url.removeprefix(HUB) if url.startswith(HUB) else None
    task = {"type": "image-classification", "name": "Image classification"}
    name = published or source
    result = {"task": task, "dataset": {"type": name, "name": name, "split": "test"}, "metrics": metrics}
    licence = licence_id(str(run.header.get("licence", "")))
    return {
        **({"license": licence} if licence else {}),
        "library_name": "medrobust",
        "pipeline_tag": "image-classification",
        "tags": ["medical-imaging", "adversarial-robustness", card["model"]["timm"]],
        **({"datasets": [published]} if published else {}),
        "metrics": sorted({metric["type"] for metric in metrics}),
        "model-index": [{"name": f"{backbone}-{regime}", "results": [result] if metrics else []}],
    }


def licence_id(licence: str) -> str | None:
    """The Hub's identifier of a licence (`CC BY 4.0` -> `cc-by-4.0`); None if it has none."""
    slug = licence.strip().lower().replace(" ", "-")
    return slug if LICENCES.fullmatch(slug) else None


def _metrics(run: Run, backbone: str, regime: str, norms: Mapping[str, str]) -> list[dict[str, Any]]:
    if run.audit.get("verdict") not in BELIEVED:
        return []
    record = run.train.get((backbone, regime), {})
    found = [
        {"type": hub, "name": f"{name} (clean)", "value": record[name]}
        for name, hub in INDEXED.items()
        if record.get(name) is not None
    ]
    for suite in run.suites:
        if run.verdict_of(backbone, regime, suite) in ("invalid", "unchecked"):
            continue
        for eps, value in run.attack.get((backbone, regime, suite), {}).get("robust_accuracy", {}).items():
            name = f"robust accuracy ({suite}, {norms[suite]}, eps {eps})"
            found.append({"type": "accuracy", "name": name, "value": value})
    return found
