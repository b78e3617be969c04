"""Checks of a model: are its gradients, predictions and modes such that attacks can be trusted?"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.base import frozen, margin
from medrobust.attacks.methods.iterative import FGSM
from medrobust.attacks.state import loss_gradient
from medrobust.attacks.targets import Loss
from medrobust.attacks.tolerance import TOLERANCE
from medrobust.checklist.base import ImageSample, Measurement, ModelEvidence, lower_bound
from medrobust.checklist.challenge import BATCH

PASSES = 5
#: Images and directions of the finite differences.
IMAGES, DIRECTIONS = 4, 5
#: Half the distance of a finite difference, in [0, 1] pixel units: small compared with a grey level.
STEP = 1e-4
#: Share of the pixel range that is removed at both ends, so that images can change in both directions.
INSET = 0.05
NO_CORRECT_IMAGE = "no image is classified correctly"


def probabilities(evidence: ModelEvidence) -> Measurement:
    """Share of the sample whose outputs are all in [0, 1] and sum to 1 (as AutoAttack warns)."""
    outputs = _outputs(evidence.model, evidence.sample.images)
    inside = ((outputs >= 0) & (outputs <= 1)).all(1) & ((outputs.sum(1) - 1).abs() < 1e-3)
    share = float(inside.float().mean())
    return Measurement(share, f"{share:.0%} of outputs are probabilities")


def class_count(evidence: ModelEvidence) -> Measurement:
    """Difference between the numbers of outputs and of classes of the data, plus 1 if there is only one class."""
    outputs = _outputs(evidence.model, evidence.sample.images[:1]).shape[1]
    difference = abs(outputs - evidence.classes) + (evidence.classes < 2)
    return Measurement(float(difference), f"{outputs} outputs for {evidence.classes} classes")


def deterministic(evidence: ModelEvidence) -> Measurement:
    """Largest difference between passes over the same images: L2, relative to the norm of the logits.

    The last pass records a graph for gradients, as attacks do.
    """
    with frozen(evidence.model):
        first, *others = [_outputs(evidence.model, evidence.sample.images) for _ in range(PASSES - 1)]
        others.append(evidence.model(evidence.sample.images.clone().requires_grad_()).detach().double())
    gap = max(float(((other - first).norm(dim=1) / first.norm(dim=1).clamp_min(1e-9)).max()) for other in others)
    return Measurement(gap, f"relative difference {gap:.1e} in {PASSES} passes")


def modes_intact(evidence: ModelEvidence) -> Measurement:
    """Number of changes by an attack, and of parts that eval mode does not freeze.

    Counted are modules whose training flag an attack changed, modules that eval mode leaves in training mode,
    buffers (running statistics) that a forward pass changed, and 1 if the prediction for an image depends on the
    other images of its batch.
    """
    model, images = evidence.model, evidence.sample.images
    flags = [module.training for module in model.modules()]
    _attack_two_images(evidence)
    changed = sum(a != b.training for a, b in zip(flags, model.modules(), strict=True))
    with frozen(model):
        training = sum(module.training for module in model.modules())
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        together = _outputs(model, images)
        moved = sum(not torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())
        alone = torch.cat([_outputs(model, image[None]) for image in images[:2]])
    gap = float((alone - together[:2]).norm() / together[:2].norm().clamp_min(1e-9))
    parts = f"{changed} flags changed, {training} modules in training mode, {moved} buffers changed"
    text = f"{parts}, logits of an image alone and in a batch differ by {gap:.1e}"
    return Measurement(float(changed + training + moved + (gap > 1e-2)), text)


def bad_gradient(evidence: ModelEvidence) -> Measurement:
    """Images of the sample whose gradient has NaN or infinity."""
    both = torch.cat(_gradients(evidence, ("margin", "ce")), dim=1)
    bad = int((~torch.isfinite(both)).flatten(1).any(1).sum())
    return Measurement(float(bad), f"{bad} of {len(both)} images with NaN or infinity in their gradient")


def zero_gradient(evidence: ModelEvidence) -> Measurement:
    """Images whose margin loss has a gradient of exactly zero."""
    return _zero_gradients(evidence, "margin")


def saturated_loss(evidence: ModelEvidence) -> Measurement:
    """Images whose cross-entropy has a gradient of exactly zero, in float32."""
    return _zero_gradients(evidence, "ce")


def finite_difference(evidence: ModelEvidence) -> Measurement:
    """Relative error of the gradient along random directions against central differences in float64.

    The error of an image is the root mean square of (difference - gradient), divided by the sum of those of both,
    and is between 0 and 1. The median over images is used, so that a kink near one image has no effect.
    """
    sample = evidence.sample.select(np.arange(min(IMAGES, len(evidence.sample))))
    with frozen(evidence.model):
        model = copy.deepcopy(evidence.model).double()
        images = INSET + (1 - 2 * INSET) * sample.images.double()
        _, gradient = loss_gradient(model, images, sample.labels, "margin")
        generator = torch.Generator().manual_seed(int(sample.seeds[0]) % 2**31)
        pairs = []
        for _ in range(DIRECTIONS):
            sign = torch.randint(0, 2, images.shape, generator=generator).to(images) * 2 - 1
            high, low = (_margin(model, images + side * STEP * sign, sample) for side in (1, -1))
            pairs.append(torch.stack([(high - low) / (2 * STEP), (gradient * sign).flatten(1).sum(1)]))
    difference, slope = torch.stack(pairs).unbind(1)
    scale = _rms(difference) + _rms(slope)
    error = torch.where(scale > 0, _rms(difference - slope) / scale.clamp_min(1e-30), torch.ones_like(scale))
    median = float(error.median())
    return Measurement(median, f"median error {median:.1%} over {len(sample)} images, {DIRECTIONS} directions")


def collapse(evidence: ModelEvidence) -> Measurement:
    """Share of the most frequent prediction on clean images; 0 if it is no larger than its class's share."""
    shares = np.bincount(evidence.preds, minlength=evidence.classes) / len(evidence.preds)
    top = int(shares.argmax())
    true_share = float((evidence.labels == top).mean())
    text = f"{shares[top]:.1%} of predictions are one class, {true_share:.1%} of images belong to it"
    return Measurement(float(shares[top]) if shares[top] > true_share else 0.0, text)


def one_input(evidence: ModelEvidence) -> Measurement:
    """Members of an ensemble that received other images than the first member while an attack ran."""
    members = getattr(evidence.model, "members", None)
    if not isinstance(members, nn.ModuleList) or len(members) < 2:
        return Measurement(None, "no ensemble")
    inputs: list[list[Tensor]] = [[] for _ in members]

    def record(member: int) -> Callable[..., None]:
        return lambda _, args: inputs[member].append(args[0].detach().clone())

    hooks = [member.register_forward_pre_hook(record(i)) for i, member in enumerate(members)]
    try:
        _attack_two_images(evidence)
    finally:
        for hook in hooks:
            hook.remove()
    others = sum(not _same(inputs[0], images) for images in inputs[1:])
    return Measurement(float(others), f"{others} of {len(inputs)} members received other images than the first")


def large_radius(evidence: ModelEvidence) -> Measurement:
    """Share of images that are robust although the ball contains every image."""
    if evidence.curve is None:
        return Measurement(None, NO_CORRECT_IMAGE)
    robust, images = evidence.curve.robust_at_one, evidence.curve.images
    return Measurement(robust / images, f"{robust} of {images} images are robust at eps 1")


def monotone(evidence: ModelEvidence) -> Measurement:
    """Share of images that an attack fools at one radius and a new attack does not at the next larger one."""
    if evidence.curve is None:
        return Measurement(None, NO_CORRECT_IMAGE)
    lost, images = evidence.curve.not_monotone, evidence.curve.images
    text = f"{lost} of {images} images are fooled at one radius and robust at a larger one"
    return Measurement(lower_bound(lost, images), text)


def bit_depth(evidence: ModelEvidence) -> Measurement:
    """Share of the fooled images that are no longer fooled once they are stored."""
    curve = evidence.curve
    if curve is None or not curve.fooled:
        return Measurement(None, "no image is fooled at this radius")
    lost = curve.fooled - curve.fooled_stored
    text = f"{lost} of {curve.fooled} attacked images are harmless once stored"
    return Measurement(lower_bound(lost, curve.fooled), text)


def training_attack(evidence: ModelEvidence) -> Measurement:
    """Share of `adv.eps` that alpha·steps of the training attack does not cover; the largest over the members.

    It is 0 unless `adv.allow_weak` is set, because other settings are refused.
    """
    weak = [block for block in evidence.trainings if block.get("allow_weak") and block["alpha"] != "auto"]
    covered = [float(block["alpha"]) * int(block["steps"]) / float(block["eps"]) for block in weak]
    if not covered or min(covered) >= 1 - TOLERANCE:
        return Measurement(0.0, "the model was not trained with a weak attack")
    return Measurement(1 - min(covered), f"the training attack moves at most {min(covered):.3g} eps")


def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = model(images).double()
    return outputs


def _attack_two_images(evidence: ModelEvidence) -> None:
    sample = evidence.sample.select(np.arange(min(2, len(evidence.sample))))
    FGSM(eps=0.01)(evidence.model, sample.images, sample.labels, seeds=sample.seeds)


def _gradients(evidence: ModelEvidence, losses: tuple[Loss, ...]) -> list[Tensor]:
    pairs = list(zip(evidence.sample.images.split(BATCH), evidence.sample.labels.split(BATCH), strict=True))
    with frozen(evidence.model):
        parts = [[loss_gradient(evidence.model, *pair, loss)[1] for pair in pairs] for loss in losses]
    return [torch.cat(gradients) for gradients in parts]


def _zero_gradients(evidence: ModelEvidence, loss: Loss) -> Measurement:
    (gradient,) = _gradients(evidence, (loss,))
    zero = int((gradient.abs().flatten(1).amax(1) == 0).sum())
    return Measurement(float(zero), f"{zero} of {len(gradient)} images without a gradient of the {loss} loss")


def _margin(model: nn.Module, images: Tensor, sample: ImageSample) -> Tensor:
    return margin(_outputs(model, images), sample.labels)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean(0).sqrt()


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
