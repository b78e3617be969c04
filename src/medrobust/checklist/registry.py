"""Every check, with its thresholds and what a failure means. To add one: a function and an entry here.

Sources: Carlini et al. 2019 (the list), Athalye et al. 2018, AutoAttack's own warnings (Croce & Hein 2020), the
rules of RobustBench (Croce et al. 2021), ART's security curves; docs/checklist.md says which is whose. Carlini et
al. warn that such a list is neither necessary nor sufficient: the best that it gives is "no problem found".
"""

from medrobust.checklist import challengers, model, suite
from medrobust.checklist.base import Check
from medrobust.checklist.challenge import BLIND, LOSS, NOISE, ONE_STEP, PLAIN, SIZE, STARTS, STEPS, TRANSFER

#: Points of robust accuracy, as a share, above which a stronger challenger makes a number suspect, and invalid.
SUSPECT, INVALID = 0.005, 0.02

CHECKS = (
    Check(
        "probabilities", "model", "share of outputs that are probabilities", None, 0.0,
        "a softmax inside the model flattens every gradient", "attack the logits: leave the softmax out",
        model.probabilities,
    ),
    Check(
        "class count", "model", "difference between outputs and classes", None, 0.0,
        "labels and outputs do not belong together", "give the model that was trained on these classes",
        model.class_count,
    ),
    Check(
        "deterministic", "model", "relative difference between passes over the same images", None, 1e-4,
        "a random defence: one gradient and one answer say little",
        "attack the expectation over its randomness (eot: 20 in iterative attacks and apgd), or take it out",
        model.deterministic,
    ),
    Check(
        "modes intact", "model", "flags and buffers that move, and answers that depend on batch mates", None, 0.0,
        "BatchNorm or dropout is in training mode; the number is of another model in every batch",
        "keep every module in eval mode", model.modes,
    ),
    Check(
        "bad gradient", "model", "images whose gradient has NaN or infinity", None, 0.0,
        "the graph is broken; gradient attacks do nothing or anything",
        "find the layer whose derivative is not finite, or train in fp32", model.bad_gradient,
    ),
    Check(
        "zero gradient", "model", "images whose margin loss has a gradient of zero", None, 0.0,
        "rounding or saturation masks the gradient; gradient attacks stand still",
        "attack without gradients (square), or through a smooth stand-in for the layer (BPDA)",
        model.zero_gradient,
    ),
    Check(
        "saturated loss", "model", "images whose cross-entropy has a gradient of zero", 0.0, None,
        "logits are so large that cross-entropy attacks stand still", "add an attack on the margin (loss: margin)",
        model.saturated_loss,
    ),
    Check(
        "finite difference", "model", "error of the gradient against finite differences", 0.05, 0.5,
        "a layer's gradient is not that of what it computes; gradient attacks walk astray",
        "give the layer its true gradient or a smooth stand-in (BPDA), and add attacks without gradients",
        model.finite_difference,
    ),
    Check(
        "one input", "model", "members of an ensemble that see another image than the first", None, 0.0,
        "the members were attacked, not the ensemble", "give all members the same tensor", model.one_input,
    ),
    Check(
        "collapse", "model", "share of the commonest answer, where it is more than the class's own", None, 0.95,
        "the model answers one class; what looks like robustness is a constant",
        "train again: smaller eps or learning rate, balanced classes", model.collapse,
    ),
    Check(
        "large radius", "model", "share of images that stand at eps 1", None, 0.01,
        "where any image may be shown, all must fall; the gradients are masked",
        "add attacks without gradients and look for the layer that masks", model.large_radius,
    ),
    Check(
        "monotone", "model", "share of images that rise again at a larger radius", None, 0.01,
        "a larger ball holds the smaller one; gradients are masked or the attack is badly tuned",
        "let alpha follow eps (alpha: null) and take more steps; if it stays, add attacks without gradients",
        model.monotone,
    ),
    Check(
        "bit depth", "model", "share of attacked images that are harmless once stored", 0.05, None,
        "the attack lives between two grey levels and is gone when the image is stored",
        "cite robust_accuracy_stored beside robust_accuracy, or attack at a radius of several grey levels",
        model.bit_depth,
    ),
    Check(
        "reach", "suite", "share of the ball's width (2 eps) that alpha x steps does not walk", 0.0, 0.5,
        "the attack cannot get everywhere in the ball; where it fails, its radius is a false name",
        "leave alpha out (2.5 eps / steps), or take more steps", suite.reach,
    ),
    Check(
        "targets", "suite", "wrong classes that a search over targets never tries", 0.0, None,
        "an error may wait in a class that no attack aimed at", "raise targets", suite.targets,
    ),
    Check(
        "unseen attack", "suite", "1 if all attacks climb the loss of the training", 0.0, None,
        "the model may know its training's attack only", "add another loss (margin, dlr) or method (square)",
        suite.unseen,
    ),
    Check(
        "validity", "suite", "attempts outside the ball, or not finite", None, 0.0,
        "the images are no adversarial examples of this threat model", "mend the attack", suite.valid,
    ),
    Check(
        "robust <= clean", "suite", "images that are robust and naturally wrong", None, 0.0,
        "labels or attack are wrong: no attack mends an image", "compare ids and labels of records and data",
        suite.below_clean,
    ),
    Check(
        "worst case", "suite", "images whose rows are not the worst over all attempts", None, 0.0,
        "robust accuracy is overestimated: a mean over attacks or radii is no worst case",
        "count an image as robust only if it stands every attempt", suite.worst_case,
    ),
    Check(
        "budget", "suite", "share of the radius that failed attacks did not go", 0.1, 0.5,
        "the attack did not spend its budget; its name is false", "larger alpha or more steps", suite.budget,
    ),
    Check(
        "saturation", "suite", "share of the pixels inside the ball on failed images", 0.7, None,
        "steps along the sign should end at the border; they are too small or go to and fro",
        "larger alpha or more steps", suite.saturation,
    ),
    Check(
        "sample size", "suite", "how many times too wide the interval, or too few the patients", 1.0, None,
        "too weak to compare with another number",
        "test on more patients of the rarest class; never compare without the intervals", suite.sample_size,
    ),
    Check(
        NOISE, "suite", "share of standing images that noise brings nearer to an error", 0.05, 0.25,
        "the attack adds little to noise", "add a stronger attack (apgd, or pgd with more steps)",
        challengers.noise,
    ),
    Check(
        ONE_STEP, "suite", "robust accuracy that one step takes away", SUSPECT, INVALID,
        "an iterative attack that a single step beats is weak, or the gradients are masked",
        "add fgsm, and give the iterative attack more steps", challengers.one_step,
    ),
    Check(
        PLAIN, "suite", "robust accuracy that a plain PGD takes away", SUSPECT, 0.1,
        "the suite is weaker than the textbook attack; its number is an upper bound", "add pgd to the suite",
        challengers.plain_pgd,
    ),
    Check(
        LOSS, "suite", "robust accuracy that the margin loss takes away beyond cross-entropy", SUSPECT, 0.03,
        "the scale of the logits hides the gradient of the cross-entropy", "add an attack with loss: margin",
        challengers.logit_scale,
    ),
    Check(
        STEPS, "suite", "robust accuracy that twice the steps take away", SUSPECT, INVALID,
        "the attack has not converged", "double the steps until this passes, or take apgd",
        challengers.convergence,
    ),
    Check(
        STARTS, "suite", "robust accuracy that four more random starts take away", 0.01, 0.05,
        "one random start decides the number", "raise restarts", challengers.restarts,
    ),
    Check(
        SIZE, "suite", "robust accuracy that other step sizes take away", SUSPECT, 0.05,
        "the step size is badly tuned", "leave alpha out, or take apgd, which finds its own",
        challengers.step_size,
    ),
    Check(
        BLIND, "suite", "robust accuracy that an attack without gradients takes away", 0.002, 0.005,
        "an attack that sees less does more: the gradients mislead",
        "add square to the suite, and look for the layer that masks the gradient", challengers.black_box,
    ),
    Check(
        TRANSFER, "suite", "robust accuracy that images of another model take away", None, 0.01,
        "images made elsewhere do more than the suite's own: the gradients mislead",
        "add transfer to the suite, and look for the layer that masks the gradient", challengers.transfer,
    ),
)  # fmt: skip
