"""The training stages: clean, and adversarial from the clean model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medrobust.core.errors import UserError
from medrobust.core.params.report import ReportParams
from medrobust.core.params.schema import override
from medrobust.core.params.training import AdvParams, AugmentParams, ModelParams, TrainParams
from medrobust.core.processes import rank
from medrobust.core.records import read_json, read_table
from medrobust.core.runtime import device, seed_everything
from medrobust.data.store import ImageStore, Subset, read_header
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier, set_trainable
from medrobust.models.classifier import Classifier
from medrobust.models.predict import log_probabilities
from medrobust.training import distributed
from medrobust.training.loop import Job, fit
from medrobust.training.memory import within_memory
from medrobust.training.outputs import Paths, array_hash, table_hash, write_outputs
from medrobust.training.settings import Settings, tuned
from medrobust.training.state import forget, resume_key
from medrobust.training.subsets import hide_labels, read_folder


@dataclass(frozen=True)
class Images:
    """The three subsets and what identifies them."""

    subsets: dict[str, Subset]
    ordered: bool
    hashes: dict[str, str]

    @classmethod
    def open(cls, prepared: Path, split: Path) -> "Images":
        """Open the prepared store and deal it by the split table."""
        store, table = ImageStore.open(prepared), read_table(split, keep_default_na=False)
        subsets = {name: store.subset(table, name).resident(device()) for name in ("train", "val", "test")}
        return cls(subsets, store.header.ordered, image_hashes(prepared, split))


def image_hashes(prepared: Path, split: Path) -> dict[str, str]:
    """What identifies images and split; no image is read for it."""
    table = read_table(split, keep_default_na=False)
    return {"data": read_header(prepared / "header.json").sha256, "split": table_hash(table)}


@dataclass(frozen=True)
class Training:
    """What a training stage is given.

    Attributes:
        settings: of the backbone.
        images: to train, validate and test on.
        best: the study's `best.json`.
        paths: where the results go.
        seed, augment, report: blocks of params.yaml.
    """

    settings: Settings
    images: Images
    best: Path
    paths: Paths
    seed: int
    augment: AugmentParams
    report: ReportParams

    @property
    def train(self) -> TrainParams:
        """The `train` block with the study's best values in place."""
        return tuned(self.settings.train, self.best)

    def job(self, regime: str, classifier: Classifier, settings: TrainParams, **parts: Any) -> tuple[Job, Any]:
        """A job of this training, and the facts that decide its result; `parts` are further parts of the job."""
        adv: AdvParams | None = parts.get("adv")
        params = {
            "train": settings.model_dump(), **({"adv": adv.model_dump()} if adv else {}),
            "augment": self.augment.model_dump(),
            "model": self.settings.model.model_dump(exclude={"train", "adv"}),
            **parts.pop("facts", {}),
        }  # fmt: skip
        facts = {
            "backbone": self.settings.backbone, "regime": regime, "seed": self.seed, **self.images.hashes,
            "files": sorted(self.settings.files.values()),
            "params": params,
        }  # fmt: skip
        objective = (self.settings.adv_objective if adv else None) or self.settings.objective
        given = {"train": self.images.subsets["train"], "val": self.images.subsets["val"], **parts}
        job = Job(
            classifier, settings=settings, augment=self.augment, objective=objective,
            seed=self.seed, key=resume_key({**facts, "code": self.settings.code}), **given,
        )  # fmt: skip
        return job, facts


def new_classifier(model: ModelParams, classes: list[str]) -> Classifier:
    """An untrained classifier on the device, with what is not to be trained frozen."""
    classifier = build_classifier(model, classes).to(device())
    set_trainable(classifier, model.trainable)
    return classifier


def train_stage(training: Training) -> None:
    """Train a backbone on clean images."""
    with distributed.processes(), within_memory(training.train.batch_size):
        seed_everything(training.seed)
        classifier = new_classifier(training.settings.model, training.images.subsets["train"].classes)
        job, facts = training.job("clean", classifier, training.train)
        _fit_and_write(training, job, classifier, facts)


def adv_train_stage(training: Training, clean: Path) -> None:
    """Train on, from the clean model, by the adversarial objective.

    With a share of the patients' labels taken away, the clean model is one that never saw these labels: it is
    trained here first.

    Args:
        training: whose settings have an `adv` block.
        clean: the checkpoint of the clean model.

    Raises:
        UserError: the clean model was trained on other classes, or the memory does not hold the batches.
    """
    adv, chosen = training.settings.adv, training.train
    assert adv is not None, "the stage `settings` writes it"
    changes = {"epochs": adv.epochs, "lr": chosen.lr * adv.lr_scale, "ema": adv.ema}
    with distributed.processes(), within_memory(chosen.batch_size):
        seed_everything(training.seed)
        classifier, parts = _start(training, adv, clean)
        job, facts = training.job("adv", classifier, override(chosen, changes, "adv"), adv=adv, **parts)
        _fit_and_write(training, job, classifier, facts)


def _start(training: Training, adv: AdvParams, clean: Path) -> tuple[Classifier, dict[str, Any]]:
    """The classifier that adversarial training starts from, and what its job has besides."""
    train = training.images.subsets["train"]
    classifier = checkpoint.load(clean, device())
    if classifier.classes != train.classes:
        found = f"was trained on {classifier.classes}"
        raise UserError(str(clean), found, "Run `dvc repro`, so that the clean model is trained on this split")
    facts: dict[str, Any] = {"clean": read_json(clean / "card.json")["sha256"]}
    parts: dict[str, Any] = {}
    if isinstance(adv.unlabelled, str):
        unlabelled = read_folder(Path(adv.unlabelled).expanduser(), train)
        facts["unlabelled"] = {"images": len(unlabelled), "sha256": array_hash(unlabelled.store_images)}
    elif adv.unlabelled:
        parts["train"], unlabelled = hide_labels(train, adv.unlabelled, training.seed)
        classifier = new_classifier(training.settings.model, train.classes)
        first, _ = training.job("labelled", classifier, training.train, train=parts["train"])
        fit(first)
        facts = {"clean": first.key, "unlabelled": {"images": len(unlabelled)}}
    if adv.unlabelled:
        pseudo = log_probabilities(classifier, unlabelled).argmax(1)
        if not isinstance(adv.unlabelled, str):
            facts["unlabelled"]["right_pseudo_labels"] = round(float(np.mean(pseudo == unlabelled.labels)), 4)
        parts["unlabelled"] = replace(unlabelled, labels=pseudo)
    set_trainable(classifier, training.settings.model.trainable)
    return classifier, {**parts, "facts": facts}


def _fit_and_write(training: Training, job: Job, classifier: Classifier, facts: Any) -> None:
    result = fit(job)
    if rank() > 0:
        return
    write_outputs(
        training.paths, classifier, result, training.images.subsets, model=training.settings.model,
        ordered=training.images.ordered, report=training.report, card=facts, robust=job.adv is not None,
    )  # fmt: skip
    # `clean` is the key of a clean model that was trained here for want of labels, else a hash without a file.
    for key in (job.key, *([facts["params"]["clean"]] if job.adv else [])):
        forget(key)
