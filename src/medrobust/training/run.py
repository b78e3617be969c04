"""The training stages: clean, and adversarial from the clean model."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medrobust.data.store import ImageStore, Subset
from medrobust.errors import UserError
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.models.classifier import Classifier
from medrobust.params.report import ReportParams
from medrobust.params.schema import override
from medrobust.params.training import AdvParams, AugmentParams, ModelParams, TrainParams
from medrobust.records import read_json, read_table
from medrobust.runtime import device, seed_everything
from medrobust.training.loop import Job, class_weights, fit, resume_key, resume_path
from medrobust.training.objectives import clean_objective, mixed_objective, training_attack
from medrobust.training.outputs import Paths, table_hash, write_outputs


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
        return cls(subsets, store.header.ordered, {"data": store.header.sha256, "split": table_hash(table)})


def tuned(train: TrainParams, best: Path) -> TrainParams:
    """The `train` block with the study's best values in place."""
    chosen = {key: value for key, value in read_json(best).items() if key in TrainParams.model_fields}
    return override(train, chosen, f"train (from {best})")


def train_stage(
    backbone: str, images: Images, paths: Paths, best: Path, *, seed: int, model: ModelParams,
    train: TrainParams, augment: AugmentParams, report: ReportParams,
) -> None:  # fmt: skip
    """Train a backbone on clean images."""
    settings = tuned(override(train, model.train, f"models.{backbone}.train"), best)
    seed_everything(seed)
    classifier = build_classifier(model, images.subsets["train"].classes).to(device())
    weight = class_weights(images.subsets["train"], settings.class_weights, device())
    objective = clean_objective(weight, settings.label_smoothing)
    facts = {"backbone": backbone, "regime": "clean", "seed": seed, **images.hashes}
    facts["params"] = {
        "train": settings.model_dump(),
        "augment": augment.model_dump(),
        "model": model.model_dump(),
    }
    subsets = images.subsets
    job = Job(
        classifier,
        subsets["train"],
        subsets["val"],
        settings,
        augment,
        objective,
        None,
        seed,
        resume_key(facts),
    )
    _fit_and_write(job, classifier, paths, images, model=model, report=report, card=facts)


def adv_train_stage(
    backbone: str, images: Images, paths: Paths, best: Path, clean: Path, *, seed: int, model: ModelParams,
    train: TrainParams, adv: AdvParams, augment: AugmentParams, report: ReportParams,
) -> None:  # fmt: skip
    """Train on, from the clean model, with attacked images in every batch."""
    settings = tuned(override(train, model.train, f"models.{backbone}.train"), best)
    own = override(adv, model.adv, f"models.{backbone}.adv")
    changes = {"epochs": own.epochs, "lr": settings.lr * own.lr_scale}
    settings = override(settings, changes, "adv")
    seed_everything(seed)
    classifier = checkpoint.load(clean, device())
    if classifier.classes != images.subsets["train"].classes:
        found = f"was trained on {classifier.classes}"
        raise UserError(str(clean), found, "Run `dvc repro`, so that the clean model is trained on this split")
    weight = class_weights(images.subsets["train"], settings.class_weights, device())
    objective = mixed_objective(own, weight, settings.label_smoothing)
    facts = {"backbone": backbone, "regime": "adv", "seed": seed, **images.hashes}
    facts["params"] = {
        "train": settings.model_dump(), "adv": own.model_dump(), "augment": augment.model_dump(),
        "model": model.model_dump(), "clean": read_json(clean / "card.json")["sha256"],
    }  # fmt: skip
    attack = training_attack(own, stop_when_fooled=True)
    subsets = images.subsets
    job = Job(
        classifier,
        subsets["train"],
        subsets["val"],
        settings,
        augment,
        objective,
        attack,
        seed,
        resume_key(facts),
    )
    _fit_and_write(job, classifier, paths, images, model=model, report=report, card=facts)


def _fit_and_write(
    job: Job, classifier: Classifier, paths: Paths, images: Images, *,
    model: ModelParams, report: ReportParams, card: dict[str, Any],
) -> None:  # fmt: skip
    begin = time.monotonic()
    result = fit(job)
    write_outputs(
        paths, classifier, result, images.subsets, model=model, ordered=images.ordered, report=report,
        card=card, seconds=time.monotonic() - begin,
    )  # fmt: skip
    if job.key:
        resume_path(job.key).unlink(missing_ok=True)
