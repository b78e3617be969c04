"""The metadata of a model card, by which the Hugging Face Hub lists, filters and compares models.

Keys and values: Hugging Face Hub documentation, "Model Cards" (metadata specification, `model-index`, licences).
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from medrobust.report.run import Run

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

#: Clean metrics that are published, with their names on the Hub.
PUBLISHED = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "macro_f1": "f1",
    "auroc": "roc_auc",
}
#: The Hub's identifiers of licences that data sets are published under.
LICENCES = re.compile(
    r"mit|apache-2\.0|cc0-1\.0|cc-by-(2\.0|2\.5|3\.0|4\.0)|cc-by-sa-(3\.0|4\.0)|cc-by-nc-(2\.0|3\.0|4\.0)|cc-by-nd-4\.0"
    r"|cc-by-nc-nd-(3\.0|4\.0)|cc-by-nc-sa-(2\.0|3\.0|4\.0)|cdla-(sharing-1\.0|permissive-[12]\.0)|odc-by|odbl|pddl"
)
#: Verdicts of the audit under which numbers may be compared with those of others.
TRUSTED = ("clean", "suspect")
HUB = "https://huggingface.co/datasets/"


def metadata(run: Run, backbone: str, regime: str, norms: Mapping[str, str]) -> "ModelCardData":
    """The metadata of one model; unknown values are left out.

    The Hub lists and compares these numbers without the card's verdicts. So it gets no number of a split that
    leaks, and none of a suite whose evaluation is invalid or was not checked.

    Args:
        run: the results of the backbone.
        backbone, regime: the model; its checkpoint's card must be there.
        norms: suite -> its norm.
    """
    from huggingface_hub import EvalResult, ModelCardData

    url = str(run.header.get("url", ""))
    published = url.removeprefix(HUB) if url.startswith(HUB) else None
    data = published or str(run.header.get("source", "unknown"))
    result = partial(
        EvalResult, task_type="image-classification", task_name="Image classification", dataset_type=data,
        dataset_name=data, dataset_split="test",
    )  # fmt: skip
    metrics = _metrics(run, backbone, regime, norms)
    return ModelCardData(
        license=licence_id(str(run.header.get("licence", ""))),
        library_name="medrobust",
        pipeline_tag="image-classification",
        tags=["medical-imaging", "adversarial-robustness", run.training.cards[backbone, regime]["model"]["timm"]],
        datasets=[published] if published else None,
        metrics=sorted({metric["metric_type"] for metric in metrics}),
        model_name=f"{backbone}-{regime}",
        eval_results=[result(**metric) for metric in metrics],
    )


def licence_id(licence: str) -> str | None:
    """The Hub's identifier of a licence (`CC BY 4.0` -> `cc-by-4.0`); None if it has none."""
    slug = licence.strip().lower().replace(" ", "-")
    return slug if LICENCES.fullmatch(slug) else None


def _metrics(run: Run, backbone: str, regime: str, norms: Mapping[str, str]) -> list[dict[str, Any]]:
    """Type, name and value of every number that may be published."""
    if run.audit.get("verdict") not in TRUSTED:
        return []
    record = run.training.records.get((backbone, regime), {})
    values = [(kind, f"{name} (clean)", record.get(name)) for name, kind in PUBLISHED.items()]
    for suite in run.suites:
        if run.verdict_of(backbone, regime, suite) not in ("invalid", "unchecked"):
            attacked = run.attacks.records.get((backbone, regime, suite), {}).get("robust_accuracy", {})
            name = f"robust accuracy ({suite}, {norms[suite]}, eps"
            values += [("accuracy", f"{name} {eps})", value) for eps, value in attacked.items()]
    names = ("metric_type", "metric_name", "metric_value")
    return [dict(zip(names, row, strict=True)) for row in values if row[-1] is not None]
