"""Checks of a model: can its gradients, its answers and its modes be trusted by any attack at all?"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.base import frozen, margin
from medrobust.attacks.methods.pgd import FGSM
from medrobust.attacks.state import Loss, loss_gradient
from medrobust.checklist.base import Measured, ModelEvidence, Sample, surely
from medrobust.checklist.challenge import BATCH

#: Times that the same images are asked.
PASSES = 5
#: Images and directions of the finite differences.
IMAGES, DIRECTIONS = 4, 5
#: Half the distance of a finite difference, in [0, 1] pixel units: small beside a grey level.
STEP = 1e-4
#: Share of the pixel range that images are drawn in from its ends, so that both sides of a difference exist.
INSET = 0.05


def probabilities(evidence: ModelEvidence) -> Measured:
    """Share of the sample whose outputs are all in [0, 1] and sum to 1 (as AutoAttack warns)."""
    outputs = _answers(evidence.model, evidence.sample.images)
    inside = ((outputs >= 0) & (outputs <= 1)).all(1) & ((outputs.sum(1) - 1).abs() < 1e-3)
    share = float(inside.float().mean())
    return Measured(share, f"{share:.0%} of outputs are probabilities")


def class_count(evidence: ModelEvidence) -> Measured:
    """Difference between the model's outputs and the classes of the data; one class is no classification."""
    outputs = _answers(evidence.model, evidence.sample.images[:1]).shape[1]
    wrong = abs(outputs - evidence.classes) + (evidence.classes < 2)
    return Measured(float(wrong), f"{outputs} outputs for {evidence.classes} classes")


def deterministic(evidence: ModelEvidence) -> Measured:
    """Largest difference between passes over the same images: L2, relative to the logits' own norm."""
    with frozen(evidence.model):
        first, *others = [_answers(evidence.model, evidence.sample.images) for _ in range(PASSES)]
    gap = max(float(((other - first).norm(dim=1) / first.norm(dim=1).clamp_min(1e-9)).max()) for other in others)
    return Measured(gap, f"relative difference {gap:.1e} in {PASSES} passes")


def modes(evidence: ModelEvidence) -> Measured:
    """Things that an attack changed or that eval mode did not hold still.

    Counted: modules whose training flag an attack changed, modules that eval mode leaves in training mode,
    buffers (running statistics) that a pass changed, and whether an image's answer depends on its batch mates.
    """
    model, images = evidence.model, evidence.sample.images
    flags = [module.training for module in model.modules()]
    sample = evidence.sample.part(np.arange(min(2, len(evidence.sample))))
    FGSM(eps=0.01)(model, sample.images, sample.labels, seeds=sample.seeds)
    changed = sum(a != b.training for a, b in zip(flags, model.modules(), strict=True))
    with frozen(model):
        training = sum(module.training for module in model.modules())
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        whole = _answers(model, images)
        moved = sum(not torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())
        alone = torch.cat([_answers(model, image[None]) for image in images[:2]])
    gap = float((alone - whole[:2]).norm() / whole[:2].norm().clamp_min(1e-9))
    parts = f"{changed} flags changed, {training} modules in training mode, {moved} buffers moved"
    text = f"{parts}, an image alone differs by {gap:.1e} from itself in a batch"
    return Measured(float(changed + training + moved + (gap > 1e-2)), text)


def bad_gradient(evidence: ModelEvidence) -> Measured:
    """Images of the sample whose gradient has a number that is not finite."""
    both = torch.cat(_gradients(evidence, ("margin", "ce")), dim=1)
    bad = int((~torch.isfinite(both)).flatten(1).any(1).sum())
    return Measured(float(bad), f"{bad} of {len(both)} images with NaN or infinity in their gradient")


def zero_gradient(evidence: ModelEvidence) -> Measured:
    """Images whose margin loss has a gradient of exactly zero."""
    return _zeros(evidence, "margin")


def saturated_loss(evidence: ModelEvidence) -> Measured:
    """Images whose cross-entropy has a gradient of exactly zero, in float32."""
    return _zeros(evidence, "ce")


def finite_difference(evidence: ModelEvidence) -> Measured:
    """Relative error of the gradient along random directions against central differences in float64.

    For each image the root mean square of (difference - gradient) over that of both together, between 0 and 1;
    the median over images, so that a kink near one image does not decide.
    """
    sample = evidence.sample.part(np.arange(min(IMAGES, len(evidence.sample))))
    with frozen(evidence.model):
        model = copy.deepcopy(evidence.model).double()
        images = INSET + (1 - 2 * INSET) * sample.images.double()
        _, gradient = loss_gradient(model, images, sample.labels, "margin")
        numbers = torch.Generator().manual_seed(int(sample.seeds[0]) % 2**31)
        pairs = []
        for _ in range(DIRECTIONS):
            sign = torch.randint(0, 2, images.shape, generator=numbers).to(images) * 2 - 1
            high, low = (_margin(model, images + side * STEP * sign, sample) for side in (1, -1))
            pairs.append(torch.stack([(high - low) / (2 * STEP), (gradient * sign).flatten(1).sum(1)]))
    measured, claimed = torch.stack(pairs).unbind(1)
    scale = _rms(measured) + _rms(claimed)
    error = torch.where(scale > 0, _rms(measured - claimed) / scale.clamp_min(1e-30), torch.ones_like(scale))
    median = float(error.median())
    return Measured(median, f"median error {median:.1%} over {len(sample)} images, {DIRECTIONS} directions")


def collapse(evidence: ModelEvidence) -> Measured:
    """Share of the commonest answer on clean images, beyond that class's own share of the images."""
    answers = np.bincount(evidence.preds, minlength=evidence.classes) / len(evidence.preds)
    top = int(answers.argmax())
    own = float((evidence.labels == top).mean())
    text = f"{answers[top]:.1%} of answers are one class, {own:.1%} of images are of it"
    return Measured(float(answers[top]) if answers[top] > own else 0.0, text)


def one_input(evidence: ModelEvidence) -> Measured:
    """Members of an ensemble that saw another image than the first did while an attack ran."""
    members = getattr(evidence.model, "members", None)
    if not isinstance(members, nn.ModuleList) or len(members) < 2:
        return Measured(None, "no ensemble")
    seen: list[list[Tensor]] = [[] for _ in members]

    def note(place: int) -> Callable[..., None]:
        return lambda _, inputs: seen[place].append(inputs[0].detach().clone())

    hooks = [member.register_forward_pre_hook(note(place)) for place, member in enumerate(members)]
    try:
        sample = evidence.sample.part(np.arange(min(2, len(evidence.sample))))
        FGSM(eps=0.01)(evidence.model, sample.images, sample.labels, seeds=sample.seeds)
    finally:
        for hook in hooks:
            hook.remove()
    others = sum(not _same(seen[0], images) for images in seen[1:])
    return Measured(float(others), f"{others} of {len(seen)} members saw other images than the first")


def large_radius(evidence: ModelEvidence) -> Measured:
    """Share of images that stand where the ball is the whole range of images."""
    if evidence.curve is None:
        return Measured(None, "no image is answered rightly")
    standing, images = evidence.curve.standing, evidence.curve.images
    return Measured(standing / images, f"{standing} of {images} images stand at eps 1")


def monotone(evidence: ModelEvidence) -> Measured:
    """Share of images that an attack fools at a radius and, started afresh, not at the next larger one."""
    if evidence.curve is None:
        return Measured(None, "no image is answered rightly")
    lost, images = evidence.curve.lost, evidence.curve.images
    return Measured(surely(lost, images), f"{lost} of {images} images rise again at a larger radius")


def bit_depth(evidence: ModelEvidence) -> Measured:
    """Share of the images that an attack fools which it no longer fools once they are stored."""
    curve = evidence.curve
    if curve is None or not curve.fooled:
        return Measured(None, "no image is fooled at this radius")
    lost = curve.fooled - curve.stored
    return Measured(
        surely(lost, curve.fooled), f"{lost} of {curve.fooled} attacked images are harmless once stored"
    )


def _answers(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = model(images).double()
    return outputs


def _gradients(evidence: ModelEvidence, losses: tuple[Loss, ...]) -> list[Tensor]:
    pairs = list(zip(evidence.sample.images.split(BATCH), evidence.sample.labels.split(BATCH), strict=True))
    with frozen(evidence.model):
        parts = [[loss_gradient(evidence.model, *pair, loss)[1] for pair in pairs] for loss in losses]
    return [torch.cat(gradients) for gradients in parts]


def _zeros(evidence: ModelEvidence, loss: Loss) -> Measured:
    (gradient,) = _gradients(evidence, (loss,))
    zero = int((gradient.abs().flatten(1).amax(1) == 0).sum())
    return Measured(float(zero), f"{zero} of {len(gradient)} images without a gradient of the {loss} loss")


def _margin(model: nn.Module, images: Tensor, sample: Sample) -> Tensor:
    return margin(_answers(model, images), sample.labels)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean(0).sqrt()


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
