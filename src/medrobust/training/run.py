"""The training stages: clean training, and adversarial training from the clean model."""

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.code import modules_hash
from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON, TABLES, table_hashes
from medrobust.core.metrics import classification_summary, dvc_metrics, round_best
from medrobust.core.params.report import ReportParams
from medrobust.core.params.schema import override
from medrobust.core.params.training import UNLABELLED_SPLIT, AdvParams, AugmentParams, ModelParams, TrainParams
from medrobust.core.processes import rank
from medrobust.core.records import atomic_dir, read_json, write_metrics, write_table
from medrobust.core.runtime import device, seed_everything
from medrobust.data.split import UNLABELLED
from medrobust.data.store import SPLITS, Subset, open_splits
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier, set_trainable
from medrobust.models.card import weights_hash
from medrobust.models.classifier import Classifier
from medrobust.models.predict import log_probabilities, predictions_table
from medrobust.training import distributed
from medrobust.training.live import LiveCurves
from medrobust.training.loop import Job, fit
from medrobust.training.out_of_memory import explain_out_of_memory
from medrobust.training.settings import TrainingSettings, with_tuned_values
from medrobust.training.state import FitResult, delete_resume_file, resume_key
from medrobust.training.subsets import hide_labels, read_folder

#: Folder of DVCLive's curves among the plots of a training.
LIVE = "live"


@dataclass(frozen=True)
class PreparedImages:
    """The subsets by name, whether the classes are ordered, and `SplitStore.hashes`.

    The subsets are `train`, `val`, `test` and, if the split has one, `unlabelled`.
    """

    subsets: dict[str, Subset]
    ordered: bool
    hashes: dict[str, str]

    @classmethod
    def open(cls, prepared: Path, split: Path) -> "PreparedImages":
        """Open the prepared store and divide it by the split table; images go to the GPU if they fit there."""
        splits = open_splits(prepared, split)
        names = [name for name in (*SPLITS, UNLABELLED) if (splits.table["split"] == name).any()]
        subsets = {name: splits.subset(name).resident(device()) for name in names}
        return cls(subsets, splits.store.header.ordered, splits.hashes)


@dataclass(frozen=True)
class TrainOutputs:
    """Paths that a training stage writes."""

    model: Path
    predictions: Path
    metrics: Path
    plots: Path


@dataclass(frozen=True)
class TrainingRun:
    """Inputs and outputs of a training stage; `best` is the path of the study's `best.json`."""

    settings: TrainingSettings
    images: PreparedImages
    best: Path
    outputs: TrainOutputs
    seed: int
    augment: AugmentParams
    report: ReportParams

    @property
    def train(self) -> TrainParams:
        """The `train` block with the study's best values."""
        return with_tuned_values(self.settings.train, self.best)

    def job(self, regime: str, classifier: Classifier, settings: TrainParams, **parts: Any) -> tuple[Job, Any]:
        """A job of this run, and the facts that decide its result.

        `regime` is `clean`, `adv`, or `labelled` for the model that makes pseudo-labels. `parts` are further
        fields of the job; its key `facts` holds further params for the card.
        """
        adv: AdvParams | None = parts.get("adv")
        params = {
            "train": settings.model_dump(), **({"adv": adv.model_dump()} if adv else {}),
            "augment": self.augment.model_dump(),
            "model": self.settings.model.model_dump(exclude={"tune", "train", "adv"}),
            **parts.pop("facts", {}),
        }  # fmt: skip
        facts = {
            "backbone": self.settings.backbone, "regime": regime, "seed": self.seed, **self.images.hashes,
            "files": sorted(self.settings.files.values()),
            "params": params,
        }  # fmt: skip
        code = [self.settings.code, modules_hash([__name__])]
        objective = (self.settings.adv_objective if adv else None) or self.settings.objective
        fields = {"train": self.images.subsets["train"], "val": self.images.subsets["val"], **parts}
        job = Job(
            classifier, settings=settings, augment=self.augment, objective=objective,
            seed=self.seed, key=resume_key({**facts, "code": code}), **fields,
        )  # fmt: skip
        return job, facts


def new_classifier(model: ModelParams, classes: list[str]) -> Classifier:
    """An untrained classifier on the device, with the untrainable parts frozen."""
    classifier = build_classifier(model, classes).to(device())
    set_trainable(classifier, model.trainable)
    return classifier


def train_stage(run: TrainingRun) -> None:
    """Train a backbone on clean images."""
    with distributed.training_process_group(), explain_out_of_memory(run.train.batch_size):
        seed_everything(run.seed)
        classifier = new_classifier(run.settings.model, run.images.subsets["train"].classes)
        job, facts = run.job("clean", classifier, run.train)
        _fit_and_write(run, job, classifier, facts)


def adv_train_stage(run: TrainingRun, clean: Path) -> None:
    """Train with the adversarial objective, starting from the clean model.

    If `adv.unlabelled` hides the labels of a share of the patients, the start is a clean model that never saw
    these labels. It is trained here first. `clean` is the checkpoint of the clean model.

    Raises:
        UserError: the clean model was trained on other classes, or the batches do not fit into memory.
    """
    adv, tuned = run.settings.adv, run.train
    assert adv is not None, "the stage `settings` writes it"
    changes = {"epochs": adv.epochs, "lr": tuned.lr * adv.lr_scale, "ema": adv.ema}
    with distributed.training_process_group(), explain_out_of_memory(tuned.batch_size):
        seed_everything(run.seed)
        classifier, parts = _initial_classifier(run, adv, clean)
        job, facts = run.job("adv", classifier, override(tuned, changes, "adv"), adv=adv, **parts)
        _fit_and_write(run, job, classifier, facts)


def _initial_classifier(run: TrainingRun, adv: AdvParams, clean: Path) -> tuple[Classifier, dict[str, Any]]:
    """The classifier that adversarial training starts from, and further parts of its job."""
    train = run.images.subsets["train"]
    classifier = checkpoint.load(clean, device())
    if classifier.classes != train.classes:
        found = f"was trained on {classifier.classes}"
        raise UserError(str(clean), found, "Run `dvc repro` to train the clean model on this split")
    facts: dict[str, Any] = {"clean": read_json(clean / "card.json")["sha256"]}
    parts: dict[str, Any] = {}
    if adv.unlabelled == UNLABELLED_SPLIT:
        unlabelled = run.images.subsets[UNLABELLED]
        facts["unlabelled"] = {"images": len(unlabelled)}
    elif isinstance(adv.unlabelled, str):
        unlabelled = read_folder(Path(adv.unlabelled).expanduser(), train)
        facts["unlabelled"] = {"images": len(unlabelled), "sha256": _hash(unlabelled.store_images)}
    elif adv.unlabelled:
        parts["train"], unlabelled = hide_labels(train, adv.unlabelled, run.seed)
        classifier = new_classifier(run.settings.model, train.classes)
        clean_job, _ = run.job("labelled", classifier, run.train, train=parts["train"])
        fit(clean_job)
        facts = {"clean": clean_job.key, "unlabelled": {"images": len(unlabelled)}}
    if adv.unlabelled:
        pseudo_labels = log_probabilities(classifier, unlabelled).argmax(1)
        if adv.unlabelled == UNLABELLED_SPLIT or not isinstance(adv.unlabelled, str):
            correct = round(float(np.mean(pseudo_labels == unlabelled.labels)), 4)
            facts["unlabelled"]["right_pseudo_labels"] = correct
        parts["unlabelled"] = replace(unlabelled, labels=pseudo_labels)
    set_trainable(classifier, run.settings.model.trainable)
    return classifier, {**parts, "facts": facts}


def _fit_and_write(run: TrainingRun, job: Job, classifier: Classifier, facts: dict[str, Any]) -> None:
    """Train, evaluate the classifier on validation and test images, write all outputs, delete the resume file."""
    if rank() > 0:
        fit(job)
        return
    live = LiveCurves(run.outputs.plots / LIVE, run.outputs.metrics)
    result = fit(job, live)
    live.close()
    subsets, test, outputs = run.images.subsets, run.images.subsets["test"], run.outputs
    logprobs = {name: log_probabilities(classifier, subsets[name]) for name in ("val", "test")}
    summary = classification_summary(
        test.labels, logprobs["test"], test.patients, test.classes,
        ordered=run.images.ordered, resamples=run.report.bootstrap, confidence=run.report.confidence,
    )  # fmt: skip
    card = {**facts, "metrics": {key: summary[key] for key in ("n", "accuracy")}}
    checkpoint.save(outputs.model, classifier, run.settings.model, card)
    made_on = {"weights": weights_hash(outputs.model), **run.images.hashes}
    parts = [predictions_table(subsets[name], name, values) for name, values in logprobs.items()]
    predictions = pd.concat(parts, ignore_index=True)
    predictions.attrs[MADE_ON] = made_on
    write_table(outputs.predictions, predictions)
    best = {"best_epoch": result.best_epoch + 1, "best_val_balanced_accuracy": result.best_value}
    stopped = {"stopped": result.stopped} if result.stopped else {}
    val = {"val_robust" if job.adv else "val_clean": round_best(result.best_value)}
    _write_plots(outputs.plots, result, test, logprobs["test"].argmax(1))
    tables = table_hashes(*sorted(outputs.plots.glob("*.csv")))
    record = {**summary, **best, **stopped, MADE_ON: made_on, TABLES: tables}
    write_metrics(outputs.metrics, record, {**dvc_metrics(summary), **val})
    # `clean` is the resume key of a clean model that was trained here, or a hash without a resume file.
    for key in (job.key, *([facts["params"]["clean"]] if job.adv else [])):
        delete_resume_file(key)


def _write_plots(folder: Path, result: FitResult, test: Subset, preds: np.ndarray) -> None:
    """Write the training curves, beside those of DVCLive, and the table behind the confusion matrix."""
    with atomic_dir(folder) as temporary:
        shutil.move(folder / LIVE, temporary / LIVE)
        names = np.array(test.classes)
        table = pd.DataFrame({"actual": names[test.labels], "predicted": names[preds]})
        write_table(temporary / "confusion.csv", table)
        history = pd.DataFrame(result.history).assign(epoch=range(1, len(result.history) + 1))
        write_table(temporary / "history.csv", history)


def _hash(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.data).hexdigest()[:16]
