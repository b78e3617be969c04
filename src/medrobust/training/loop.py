"""The training loop for clean and adversarial objectives. A killed training resumes after its last epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from medrobust.attacks.base import Attack
from medrobust.core.errors import UserError
from medrobust.core.metrics import balanced_accuracy, confusion
from medrobust.core.params.training import AdvParams, AugmentParams, TrainParams
from medrobust.core.processes import gather, rank, rows_of_rank, world_size
from medrobust.core.runtime import progress, say
from medrobust.core.seeds import image_seeds
from medrobust.data.augment import build_augmentation
from medrobust.data.store import Subset, to_device
from medrobust.models.predict import batches, log_probabilities
from medrobust.training import distributed
from medrobust.training.objectives.base import Objective, Step, load_objective
from medrobust.training.objectives.inner import training_attack, validation_attack
from medrobust.training.optim import autocast, class_weights
from medrobust.training.perturbation import perturbed_weights
from medrobust.training.settings import ObjectiveEntry
from medrobust.training.state import FitResult, TrainingState, resume_path

#: A loss above this multiple of that of a uniform prediction counts as divergence.
DIVERGED = 50.0
#: Robust accuracy below this share of a reference value counts as collapsed.
COLLAPSED = 0.5
#: A model counts as robust to single-step attacks above this share of its clean accuracy.
SINGLE_STEP_ROBUST = 0.9


class DivergedError(UserError):
    """The loss is NaN, infinite or far too large; a study goes on with other settings."""


@dataclass(frozen=True)
class Job:
    """One training: the model, the images and the settings."""

    model: nn.Module  # trained in place; ends with the best epoch's weights
    train: Subset
    val: Subset  # the best epoch is the one with the highest value on it
    settings: TrainParams
    augment: AugmentParams  # of training images
    objective: ObjectiveEntry
    seed: int  # of order, augmentation and attacks
    adv: AdvParams | None = None  # the attack of the objective and of validation; None = clean training
    unlabelled: Subset | None = None  # for semi-supervised objectives, with pseudo-labels as labels
    batches: int | None = None  # most batches per epoch; None = all images
    key: str | None = None  # key of the resume file, a hash of all that decides the result; None = not resumable


def fit(job: Job, on_epoch: Callable[[int, dict[str, float]], None] | None = None) -> FitResult:
    """Train for `settings.epochs` epochs and load the weights of the best (or the last) epoch into the model.

    `on_epoch` is called with the index and metrics of each epoch, including those that an earlier process
    finished. It may raise an exception to stop the training (a pruned trial).

    Raises:
        UserError: more processes than batches have images for.
        DivergedError: the loss or an output for a validation image is NaN, or the loss diverges; the message names
            epoch, step and learning rate.
    """
    torch.manual_seed(job.seed + rank())
    if not job.settings.channels_last:
        job.model.to(memory_format=torch.contiguous_format)
    distributed.broadcast_from_rank_0(list(job.model.state_dict().values()))
    state = TrainingState.initial(job.model, job.settings)
    if job.key:
        state.restore(job.key)
    trainer = Trainer(job, state)
    for epoch, row in enumerate(state.result.history):
        if on_epoch:
            on_epoch(epoch, row)
    for epoch in range(len(state.result.history), job.settings.epochs):
        if state.result.stopped:
            break
        row = trainer.run_epoch(epoch)
        if job.key:
            state.save(job.key)
        if on_epoch:
            on_epoch(epoch, row)
    job.model.load_state_dict(state.result.best_state)
    return state.result


def validate(model: nn.Module, val: Subset, attack: Attack | None, seed: int) -> float:
    """Balanced accuracy of a model on the validation images, which are attacked if an attack is given.

    NaN if any output is NaN or infinite, because `argmax` would turn NaN into the first class.
    """
    own_images = val.take(rows_of_rank(np.arange(len(val))))
    counts, finite = np.zeros((len(val.classes), len(val.classes)), dtype=np.int64), True
    if len(own_images):
        logprobs = log_probabilities(model, own_images, attack, seed)
        counts += confusion(own_images.labels, logprobs.argmax(1), len(val.classes))
        finite = bool(np.isfinite(logprobs).all())
    gathered = gather((counts, finite))
    if not all(process_finite for _, process_finite in gathered):
        return math.nan
    return float(balanced_accuracy(np.sum([process_counts for process_counts, _ in gathered], axis=0)))


class Trainer:
    """Runs the epochs of a job; each epoch changes the state."""

    def __init__(self, job: Job, state: TrainingState) -> None:
        self.job, self.state = job, state
        self.objective: Objective = load_objective(job.objective)
        self.device = next(job.model.parameters()).device
        self.augmentation = build_augmentation(job.augment)
        self.weight = class_weights(job.train, job.settings.class_weights, self.device)
        self.attack = validation_attack(job.adv, job.objective.single_step) if job.adv else None

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, validate, and record the best epoch; return the metrics of this epoch."""
        job, state, result = self.job, self.state, self.state.result
        loss = self.train_epoch(epoch)
        row = {"loss": loss, "val_balanced_accuracy": self.evaluate(None, epoch)}
        if self.attack:
            row["val_robust_balanced_accuracy"] = self.evaluate(self.attack, epoch)
        value = selection_value(row)
        result.history.append({**row, "lr": state.optimiser.param_groups[0]["lr"]})
        metrics = ", ".join(f"{k} {v:.4g}" for k, v in result.history[-1].items())
        if rank() == 0:
            say(f"epoch {epoch + 1}/{job.settings.epochs}: {metrics}")
        if job.objective.single_step:
            result.stopped = self.catastrophic_overfitting(epoch, row)
        if value > result.best_value or job.settings.keep == "last":
            weights = {key: tensor.detach().clone() for key, tensor in state.evaluated_model.state_dict().items()}
            result.best_value, result.best_epoch, result.best_state = value, epoch, weights
        if isinstance(state.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            state.scheduler.step(value)
        else:
            state.scheduler.step()
        return result.history[-1]

    def evaluate(self, attack: Attack | None, epoch: int) -> float:
        """Balanced accuracy of the evaluated model on the validation images.

        Raises:
            DivergedError: an output is NaN or infinite.
        """
        value = validate(self.state.evaluated_model, self.job.val, attack, self.job.seed)
        if math.isnan(value):  # no loss was computed yet with the weights of the last step
            raise self.divergence(f"NaN or infinite outputs for validation images at epoch {epoch + 1}")
        return value

    def train_epoch(self, epoch: int) -> float:
        """One pass over the training images; return the mean loss."""
        job, model = self.job, self.job.model
        replays = job.adv.replays if job.adv and job.objective.replays else 1
        parts = self.labelled_batches(epoch)
        unlabelled = self.unlabelled_batches(epoch, len(parts))
        model.train()
        total = 0.0
        for number, positions in enumerate(progress(parts, f"epoch {epoch + 1}", unit="batches")):
            step = self.make_step(epoch, rows_of_rank(positions), unlabelled[number] if unlabelled else None)
            for _ in range(replays):
                total += self.update(replace(step, _cache={}), epoch, number) * len(step.images) / replays
        for network in {id(model): model, id(self.state.evaluated_model): self.state.evaluated_model}.values():
            distributed.average_buffers(network)
        return sum(gather(total)) / sum(map(len, parts))

    def labelled_batches(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches of positions in the training subset.

        `shuffle`: all images in random order. `balanced`: as many draws with replacement, each class equally
        likely. Batch statistics need two images per process, so a last batch with fewer is left out.

        Raises:
            UserError: no batch is left.
        """
        job = self.job
        rng, count = np.random.default_rng([job.seed, epoch]), len(job.train)
        if job.settings.sampling == "balanced":
            share = 1 / np.bincount(job.train.labels, minlength=len(job.train.classes))[job.train.labels]
            order = rng.choice(count, count, p=share / share.sum())
        else:
            order = rng.permutation(count)
        least, size = 2 * world_size(), job.settings.batch_size
        kept = [order[rows] for rows in batches(count, size) if len(rows) >= least]
        if not kept:
            found = f"batches of {min(size, count)} images for {world_size()} processes, each of which needs two"
            remedy = f"Set it (and tune.space.batch_size) to {least} or more, or start fewer processes"
            raise UserError("params.yaml: train.batch_size", found, remedy)
        return kept[: job.batches]

    def unlabelled_batches(self, epoch: int, count: int) -> list[np.ndarray]:
        """`count` batches of positions in the unlabelled subset; images are repeated if there are too few."""
        if self.job.unlabelled is None:
            return []
        size, available = self.job.settings.batch_size, len(self.job.unlabelled)
        rng = np.random.default_rng([self.job.seed, epoch, 1])
        rounds = -(-count * size // available)
        order = np.concatenate([rng.permutation(available) for _ in range(rounds)])
        return [rows_of_rank(order[number * size : (number + 1) * size]) for number in range(count)]

    def make_step(self, epoch: int, positions: np.ndarray, unlabelled_positions: np.ndarray | None) -> Step:
        """The step of a batch: augmented images at these positions of the training and unlabelled subsets."""
        job = self.job
        images, labels, seeds = self.load_batch(job.train, positions, epoch)
        unlabelled = None
        if job.unlabelled and unlabelled_positions is not None:
            unlabelled = self.load_batch(job.unlabelled, unlabelled_positions, epoch)
        return Step(
            job.model, images, labels, seeds, job.settings, job.adv, self.weight,
            (epoch + 1) / job.settings.epochs, unlabelled, self.state.memory,
        )  # fmt: skip

    def load_batch(self, subset: Subset, positions: np.ndarray, epoch: int) -> Any:
        """Augmented images, labels and seeds at these positions of a subset, on the device."""
        seeds = image_seeds(subset.ids[positions], self.job.seed + epoch + 1)
        images, labels, seeds = (
            to_device(part, self.device) for part in (subset.batch(positions), subset.targets(positions), seeds)
        )
        # Convert once per batch; otherwise the first layer would convert in every pass of the attack.
        layout = torch.channels_last if self.job.settings.channels_last else torch.contiguous_format
        return self.augmentation(images).contiguous(memory_format=layout), labels, seeds

    def update(self, step: Step, epoch: int, number: int) -> float:
        """Update the weights by one optimiser step; return the loss before it."""
        job, state = self.job, self.state
        state.optimiser.zero_grad(set_to_none=True)
        gamma = job.adv.awp if job.adv else 0.0
        with perturbed_weights(step, self.loss, gamma):
            loss = self.loss(step)
            value = float(loss.detach())
            if not math.isfinite(value) or value > DIVERGED * math.log(len(job.train.classes)):
                raise self.divergence(f"loss {value:g} at epoch {epoch + 1}, step {number + 1}")
            state.scaler.scale(loss).backward()
        gradients = [parameter.grad for parameter in job.model.parameters() if parameter.grad is not None]
        distributed.average_gradients(gradients, len(step.images))
        state.scaler.step(state.optimiser)
        state.scaler.update()
        if state.ema:
            state.ema.update_parameters(job.model)
        return value

    def loss(self, step: Step) -> torch.Tensor:
        """The objective's loss, in the number format of training."""
        with autocast(self.job.settings, self.device):
            return self.objective(step)

    def divergence(self, found: str) -> DivergedError:
        """The error for a loss or outputs that are NaN, infinite or far too large."""
        result, lr = self.state.result, self.state.optimiser.param_groups[0]["lr"]
        best = f"best so far: epoch {result.best_epoch + 1}" if result.history else "no epoch was finished"
        if result.history and self.job.key:
            best += f", saved in {resume_path(self.job.key)}"
        remedy = f"Lower the learning rate (now {lr:g}), or set train.precision: fp32"
        return DivergedError("training", f"{found} ({best})", remedy)

    def catastrophic_overfitting(self, epoch: int, row: dict[str, float]) -> str:
        """Why training must stop because of catastrophic overfitting; "" if it can go on.

        In catastrophic overfitting (Wong et al. 2020, section 5.4), robust accuracy under PGD falls to a fraction
        within an epoch, while that under the training's own single step stays high. If no earlier epoch was good,
        the sign is a single step that hardly lowers the clean accuracy. A model that is merely not robust yet
        loses accuracy under both attacks.
        """
        assert self.job.adv is not None
        value, clean, result = selection_value(row), row["val_balanced_accuracy"], self.state.result
        fallen = value < COLLAPSED * result.best_value
        if not fallen and value >= COLLAPSED * clean:
            return ""
        one_step = self.job.adv.model_copy(update={"steps": 1, "alpha": 1.25 * self.job.adv.eps})
        single = self.evaluate(training_attack(one_step), epoch)
        if value >= COLLAPSED * single or not (fallen or single >= SINGLE_STEP_ROBUST * clean):
            return ""
        is_best = value > result.best_value
        outcome = "no earlier epoch was better" if is_best else f"epoch {result.best_epoch + 1} is the result"
        reason = (
            f"catastrophic overfitting at epoch {epoch + 1}: robust balanced accuracy {single:.3f} under one step "
            f"and {value:.3f} under PGD; {outcome}. A smaller adv.eps, adv.objective n_fgsm or a multi-step "
            "objective avoids it"
        )
        say(reason)
        return reason


def selection_value(row: dict[str, float]) -> float:
    """The value that selects the best epoch: robust balanced accuracy, or the clean one in clean training."""
    return row.get("val_robust_balanced_accuracy", row["val_balanced_accuracy"])
