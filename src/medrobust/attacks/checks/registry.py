"""Every check, with its thresholds and what a failure means. To add one: a function and an entry here.

Sources: Carlini et al. 2019 (the list), Athalye et al. 2018, AutoAttack's own warnings (Croce & Hein 2020), the
rules of RobustBench (Croce et al. 2021), ART's security curves; docs/checklist.md says which is whose. Carlini et
al. warn that such a list is neither necessary nor sufficient: the best that it gives is "no problem found".
"""

from medrobust.attacks.checks import challengers, model, suite
from medrobust.attacks.checks.base import Check
from medrobust.attacks.checks.challenge import BLIND, LOSS, NOISE, ONE_STEP, PLAIN, SIZE, STARTS, STEPS, TRANSFER

#: Points of robust accuracy, as a share, above which a stronger challenger makes a number suspect, and invalid.
SUSPECT, INVALID = 0.005, 0.02

CHECKS = (
    Check(
        "probabilities", "model", "share of outputs that are probabilities", None, 0.0,
        "a softmax inside the model flattens every gradient; attack the logits", model.probabilities,
    ),
    Check(
        "class count", "model", "difference between outputs and classes", None, 0.0,
        "labels and outputs do not belong together", model.class_count,
    ),
    Check(
        "deterministic", "model", "relative difference between passes over the same images", None, 1e-4,
        "a random defence; attack the expectation over its randomness (EOT) before believing a number",
        model.deterministic,
    ),
    Check(
        "modes intact", "model", "flags and buffers that move, and answers that depend on batch mates", None, 0.0,
        "BatchNorm or dropout is in training mode; the number is of another model in every batch", model.modes,
    ),
    Check(
        "bad gradient", "model", "images whose gradient has NaN or infinity", None, 0.0,
        "the graph is broken; gradient attacks do nothing or anything", model.bad_gradient,
    ),
    Check(
        "zero gradient", "model", "images whose margin loss has a gradient of zero", None, 0.0,
        "rounding or saturation masks the gradient; use attacks without gradients, or a smooth stand-in (BPDA)",
        model.zero_gradient,
    ),
    Check(
        "saturated loss", "model", "images whose cross-entropy has a gradient of zero", 0.0, None,
        "logits are so large that cross-entropy attacks stand still; use the margin loss", model.saturated_loss,
    ),
    Check(
        "finite difference", "model", "error of the gradient against finite differences", 0.05, 0.5,
        "a layer's gradient is not that of what it computes; gradient attacks walk astray (BPDA)",
        model.finite_difference,
    ),
    Check(
        "one input", "model", "members of an ensemble that see another image than the first", None, 0.0,
        "the members were attacked, not the ensemble", model.one_input,
    ),
    Check(
        "collapse", "model", "share of the commonest answer, where it is more than the class's own", None, 0.95,
        "the model answers one class; what looks like robustness is a constant", model.collapse,
    ),
    Check(
        "large radius", "model", "share of images that stand at eps 1", None, 0.01,
        "where any image may be shown, all must fall; the gradients are masked", model.large_radius,
    ),
    Check(
        "monotone", "model", "share of images that rise again at a larger radius", None, 0.01,
        "a larger ball holds the smaller one; gradients are masked or the attack is badly tuned", model.monotone,
    ),
    Check(
        "bit depth", "model", "share of attacked images that are harmless once stored", 0.05, None,
        "the attack lives between two grey levels and is gone when the image is stored", model.bit_depth,
    ),
    Check(
        "reach", "suite", "share of the radius that alpha x steps cannot reach", None, 0.0,
        "the radius is a false name; the attack's own is alpha x steps", suite.reach,
    ),
    Check(
        "targets", "suite", "wrong classes that a search over targets never tries", 0.0, None,
        "an error may wait in a class that no attack aimed at; raise targets", suite.targets,
    ),
    Check(
        "unseen attack", "suite", "1 if all attacks climb the loss of the training", 0.0, None,
        "the model may know its training's attack only; add another loss or method", suite.unseen,
    ),
    Check(
        "validity", "suite", "attempts outside the ball, or not finite", None, 0.0,
        "the images are no adversarial examples of this threat model", suite.valid,
    ),
    Check(
        "robust <= clean", "suite", "images that are robust and naturally wrong", None, 0.0,
        "labels or attack are wrong: no attack mends an image", suite.below_clean,
    ),
    Check(
        "worst case", "suite", "images whose rows are not the worst over all attempts", None, 0.0,
        "robust accuracy is overestimated: a mean over attacks or radii is no worst case", suite.worst_case,
    ),
    Check(
        "budget", "suite", "share of the radius that no pixel moved by on failed images", 0.1, 0.5,
        "the attack did not spend its budget; its name is false", suite.budget,
    ),
    Check(
        "saturation", "suite", "share of the pixels inside the ball on failed images", 0.7, None,
        "steps along the sign should end at the border; they are too small or go to and fro", suite.saturation,
    ),
    Check(
        "sample size", "suite", "how many times too wide the interval, or too few the patients", 1.0, None,
        "too weak to compare with another number", suite.sample_size,
    ),
    Check(
        NOISE, "suite", "share of standing images that noise brings nearer to an error", 0.05, 0.25,
        "the attack adds nothing to noise", challengers.noise,
    ),
    Check(
        ONE_STEP, "suite", "robust accuracy that one step takes away", SUSPECT, INVALID,
        "an iterative attack that a single step beats is weak, or the gradients are masked", challengers.one_step,
    ),
    Check(
        PLAIN, "suite", "robust accuracy that a plain PGD takes away", SUSPECT, 0.1,
        "the suite is weaker than the textbook attack; its number is an upper bound", challengers.plain_pgd,
    ),
    Check(
        LOSS, "suite", "robust accuracy that the margin loss takes away beyond cross-entropy", SUSPECT, 0.03,
        "the scale of the logits hides the gradient of the cross-entropy", challengers.logit_scale,
    ),
    Check(
        STEPS, "suite", "robust accuracy that twice the steps take away", SUSPECT, INVALID,
        "the attack has not converged", challengers.convergence,
    ),
    Check(
        STARTS, "suite", "robust accuracy that four more random starts take away", 0.01, 0.05,
        "one random start decides the number", challengers.restarts,
    ),
    Check(
        SIZE, "suite", "robust accuracy that other step sizes take away", SUSPECT, 0.05,
        "the step size is badly tuned", challengers.step_size,
    ),
    Check(
        BLIND, "suite", "robust accuracy that an attack without gradients takes away", 0.002, 0.005,
        "an attack that sees less does more: the gradients mislead", challengers.black_box,
    ),
    Check(
        TRANSFER, "suite", "robust accuracy that images of another model take away", None, 0.01,
        "images made elsewhere do more than the suite's own: the gradients mislead", challengers.transfer,
    ),
)  # fmt: skip
