"""The one training loop: clean or adversarial is a matter of the objective. It resumes where it was killed."""

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
from medrobust.training.settings import Entry
from medrobust.training.state import Fit, State, resume_path

#: A loss this many times that of a uniform guess is taken for divergence.
DIVERGED = 50.0
#: A robust value below this share of what it is held against has collapsed.
COLLAPSED = 0.5
#: A model that keeps this share of its clean value under one step holds against its own attack as against none.
HELD = 0.9


class DivergedError(UserError):
    """The loss is no number, or far too large; the settings are to blame, so a study goes on with others."""


@dataclass(frozen=True)
class Job:
    """One training: what to fit, on what, how.

    Attributes:
        model: trained in place; ends with the best epoch's weights.
        train, val: images; the best epoch is the one with the highest value on `val`.
        settings: epochs, optimiser, batch size, schedule, precision.
        augment: changes of training images.
        objective: what a step minimises.
        seed: of order, augmentation and attacks.
        adv: the attack of the objective and of validation; None = clean training.
        unlabelled: images for semi-supervised objectives, with pseudo-labels for labels.
        key: of the resume file; None = not resumable. A hash of all that decides the result.
    """

    model: nn.Module
    train: Subset
    val: Subset
    settings: TrainParams
    augment: AugmentParams
    objective: Entry
    seed: int
    adv: AdvParams | None = None
    unlabelled: Subset | None = None
    key: str | None = None


def fit(job: Job, on_epoch: Callable[[int, float], None] | None = None) -> Fit:
    """Train for `settings.epochs` epochs and leave the best epoch's weights in the model.

    Args:
        job: the training.
        on_epoch: called with each epoch's number and value, also with those that an earlier process finished;
            may raise to stop (a pruned trial).

    Raises:
        UserError: more processes than batches have images for.
        DivergedError: the loss, or an answer to a validation image, is NaN, or the loss diverges; the message
            names epoch, step and learning rate.
    """
    torch.manual_seed(job.seed + rank())
    if not job.settings.channels_last:
        job.model.to(memory_format=torch.contiguous_format)
    distributed.same_everywhere(list(job.model.state_dict().values()))
    state = State.fresh(job.model, job.settings)
    state.restore(job.key)
    epoch_of = Epochs(job, state)
    for epoch, row in enumerate(state.result.history):
        if on_epoch:
            on_epoch(epoch, _value(row))
    for epoch in range(len(state.result.history), job.settings.epochs):
        if state.result.stopped:
            break
        value = epoch_of.run(epoch)
        if job.key:
            state.keep(job.key)
        if on_epoch:
            on_epoch(epoch, value)
    job.model.load_state_dict(state.result.best_state)
    return state.result


def validate(model: nn.Module, val: Subset, attack: Attack | None, seed: int) -> float:
    """Balanced accuracy of a model on the validation images, attacked if an attack is given.

    NaN where an answer is no number, which `argmax` would take for the first class.
    """
    mine = val.take(rows_of_rank(np.arange(len(val))))
    counts, finite = np.zeros((len(val.classes), len(val.classes)), dtype=np.int64), True
    if len(mine):
        answers = log_probabilities(model, mine, attack, seed)
        counts += confusion(mine.labels, answers.argmax(1), len(val.classes))
        finite = bool(np.isfinite(answers).all())
    found = gather((counts, finite))
    if not all(whole for _, whole in found):
        return math.nan
    return float(balanced_accuracy(np.sum([part for part, _ in found], axis=0)))


class Epochs:
    """The epochs of a job; each changes the state."""

    def __init__(self, job: Job, state: State) -> None:
        self.job, self.state = job, state
        self.objective: Objective = load_objective(job.objective)
        self.device = next(job.model.parameters()).device
        self.augmentation = build_augmentation(job.augment)
        self.weight = class_weights(job.train, job.settings.class_weights, self.device)
        self.attack = validation_attack(job.adv, job.objective.single_step) if job.adv else None

    def run(self, epoch: int) -> float:
        """Train an epoch, validate, keep the best; return the value that the best is chosen by."""
        job, state, result = self.job, self.state, self.state.result
        loss = self.train(epoch)
        row = {"loss": loss, "val_balanced_accuracy": self.judge(None, epoch)}
        if self.attack:
            row["val_robust_balanced_accuracy"] = self.judge(self.attack, epoch)
        value = _value(row)
        result.history.append({**row, "lr": state.optimiser.param_groups[0]["lr"]})
        numbers = ", ".join(f"{k} {v:.4g}" for k, v in result.history[-1].items())
        if rank() == 0:
            say(f"epoch {epoch + 1}/{job.settings.epochs}: {numbers}")
        if job.objective.single_step:
            result.stopped = self.collapse(epoch, row)
        if value > result.best_value:
            weights = {key: tensor.detach().clone() for key, tensor in state.judged.state_dict().items()}
            result.best_value, result.best_epoch, result.best_state = value, epoch, weights
        if isinstance(state.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            state.scheduler.step(value)
        else:
            state.scheduler.step()
        return value

    def judge(self, attack: Attack | None, epoch: int) -> float:
        """Balanced accuracy of the model that is kept, on the validation images."""
        value = validate(self.state.judged, self.job.val, attack, self.job.seed)
        if math.isnan(value):  # the last step's weights are those of no loss yet
            raise self.diverged(f"answers that are no numbers to validation images at epoch {epoch + 1}")
        return value

    def train(self, epoch: int) -> float:
        """One pass over the training images; the mean loss."""
        job, model = self.job, self.job.model
        replays = job.adv.replays if job.adv and job.objective.replayed else 1
        parts = self.order(epoch)
        unlabelled = self.unlabelled_order(epoch, len(parts))
        model.train()
        total = 0.0
        for number, rows in enumerate(progress(parts, f"epoch {epoch + 1}", unit="batches")):
            step = self.step(epoch, rows_of_rank(rows), unlabelled[number] if unlabelled else None)
            for _ in range(replays):
                total += self.descend(replace(step, _kept={}), epoch, number) * len(step.images) / replays
        for each in {id(model): model, id(self.state.judged): self.state.judged}.values():
            distributed.average_buffers(each)
        return sum(gather(total)) / sum(map(len, parts))

    def order(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches of positions: all images shuffled, or as many draws with classes equally likely.

        A process needs two images for batch statistics: a last batch with fewer for each is left out.

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
        return kept

    def unlabelled_order(self, epoch: int, count: int) -> list[np.ndarray]:
        """As many batches of unlabelled positions as asked for, going round where there are too few images."""
        if self.job.unlabelled is None:
            return []
        size, available = self.job.settings.batch_size, len(self.job.unlabelled)
        rng = np.random.default_rng([self.job.seed, epoch, 1])
        rounds = -(-count * size // available)
        order = np.concatenate([rng.permutation(available) for _ in range(rounds)])
        return [rows_of_rank(order[number * size : (number + 1) * size]) for number in range(count)]

    def step(self, epoch: int, rows: np.ndarray, others: np.ndarray | None) -> Step:
        """The batch of these positions, augmented, with what its objective may ask for."""
        job = self.job
        images, labels, seeds = self.batch(job.train, rows, epoch)
        unlabelled = self.batch(job.unlabelled, others, epoch) if job.unlabelled and others is not None else None
        return Step(
            job.model, images, labels, seeds, job.settings, job.adv, self.weight,
            (epoch + 1) / job.settings.epochs, unlabelled, self.state.memory,
        )  # fmt: skip

    def batch(self, subset: Subset, rows: np.ndarray, epoch: int) -> Any:
        """Augmented images, labels and seeds of some positions, on the device."""
        seeds = image_seeds(subset.ids[rows], self.job.seed + epoch + 1)
        images, labels, seeds = (
            to_device(part, self.device) for part in (subset.batch(rows), subset.targets(rows), seeds)
        )
        # Once a batch, where the network's first layer would do it in every pass of the attack.
        wanted = torch.channels_last if self.job.settings.channels_last else torch.contiguous_format
        return self.augmentation(images).contiguous(memory_format=wanted), labels, seeds

    def descend(self, step: Step, epoch: int, number: int) -> float:
        """Take one step of the optimiser; return the loss before it."""
        job, state = self.job, self.state
        state.optimiser.zero_grad(set_to_none=True)
        gamma = job.adv.awp if job.adv else 0.0
        with perturbed_weights(step, self.loss, gamma):
            loss = self.loss(step)
            value = float(loss.detach())
            if not math.isfinite(value) or value > DIVERGED * math.log(len(job.train.classes)):
                raise self.diverged(f"loss {value:g} at epoch {epoch + 1}, step {number + 1}")
            state.scaler.scale(loss).backward()
        gradients = [parameter.grad for parameter in job.model.parameters() if parameter.grad is not None]
        distributed.average_gradients(gradients, len(step.images))
        state.scaler.step(state.optimiser)
        state.scaler.update()
        if state.average:
            state.average.update_parameters(job.model)
        return value

    def loss(self, step: Step) -> torch.Tensor:
        """The objective's loss, in the number format of training."""
        with autocast(self.job.settings, self.device):
            return self.objective(step)

    def diverged(self, found: str) -> DivergedError:
        """The error of a training that gives no numbers, or far too large ones."""
        result, lr = self.state.result, self.state.optimiser.param_groups[0]["lr"]
        good = f"best so far: epoch {result.best_epoch + 1}" if result.history else "no epoch was finished"
        if result.history and self.job.key:
            good += f", kept in {resume_path(self.job.key)}"
        remedy = f"Lower the learning rate (now {lr:g}), or set train.precision: fp32"
        return DivergedError("training", f"{found} ({good})", remedy)

    def collapse(self, epoch: int, row: dict[str, float]) -> str:
        """Why training ends if the model has become safe from one step and from nothing else; "" if it has not.

        Catastrophic overfitting (Wong et al. 2020, section 5.4): robust accuracy under PGD falls to a fraction
        within an epoch while that under the training's own single step stays. Where no epoch was good before, it
        is told by a single step that hardly does better than none: one that is merely not robust yet suffers
        from both attacks.
        """
        assert self.job.adv is not None
        value, clean, result = _value(row), row["val_balanced_accuracy"], self.state.result
        fallen = value < COLLAPSED * result.best_value
        if not fallen and value >= COLLAPSED * clean:
            return ""
        one = self.job.adv.model_copy(update={"steps": 1, "alpha": 1.25 * self.job.adv.eps})
        single = self.judge(training_attack(one), epoch)
        if value >= COLLAPSED * single or not (fallen or single >= HELD * clean):
            return ""
        better = (
            f"kept epoch {result.best_epoch + 1}" if value <= result.best_value else "no epoch before was better"
        )
        found = (
            f"catastrophic overfitting at epoch {epoch + 1}: robust balanced accuracy {single:.3f} under one step "
            f"and {value:.3f} under PGD; {better}. A smaller adv.eps, adv.objective n_fgsm or a multi-step "
            "objective avoids it"
        )
        say(found)
        return found


def _value(row: dict[str, float]) -> float:
    """What the best epoch is chosen by: robust balanced accuracy, where it was measured."""
    return row.get("val_robust_balanced_accuracy", row["val_balanced_accuracy"])
