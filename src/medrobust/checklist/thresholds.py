"""All checks, with their thresholds and the meaning of a failure. To add one: write a function, add an entry here.

docs/checklist.md names the source of each check. Carlini et al. (2019) warn that such a list is neither necessary
nor sufficient: its best verdict is "no problem found".
"""

from medrobust.checklist import model, suite
from medrobust.checklist.base import Check
from medrobust.checklist.challenge import (
    ADAPTIVE,
    BLACK_BOX,
    CONVERGENCE,
    LABEL_ONLY,
    LOGIT_SCALE,
    NOISE,
    ONE_STEP,
    PLAIN_PGD,
    RESTARTS,
    SMOOTHED,
    STEP_SIZE,
    TOGETHER,
    TRANSFER,
)
from medrobust.checklist.challengers import cosines, errors, gains, loss_to, noise, other_suites

#: Losses of robust accuracy to a challenger, as shares, above which its check warns and fails.
SUSPECT, INVALID = 0.005, 0.02

CHECKS = (
    Check(
        "probabilities", "model", "share of outputs that are probabilities", None, 0.0,
        "a softmax inside the model flattens every gradient", "remove the softmax, so that attacks use the logits",
        model.probabilities,
    ),
    Check(
        "class count", "model", "difference between outputs and classes", None, 0.0,
        "labels and outputs do not belong together", "use the model that was trained on these classes",
        model.class_count,
    ),
    Check(
        "deterministic", "model", "relative difference between passes over the same images", None, 1e-4,
        "the model is random: a single gradient and a single prediction are not reliable",
        "attack the expectation over its randomness (set eot: 20 in iterative attacks and apgd), or remove it",
        model.deterministic,
    ),
    Check(
        "modes intact", "model", "changed flags and buffers, and predictions that depend on the batch", None, 0.0,
        "BatchNorm or dropout is in training mode, so that every batch evaluates another model",
        "keep every module in eval mode", model.modes_intact,
    ),
    Check(
        "bad gradient", "model", "images whose gradient has NaN or infinity", None, 0.0,
        "the gradient is broken; gradient attacks on these images have no meaning",
        "find the layer whose derivative is not finite, or train in fp32", model.bad_gradient,
    ),
    Check(
        "zero gradient", "model", "images whose margin loss has a gradient of zero", None, 0.0,
        "rounding or saturation masks the gradient; gradient attacks do not move",
        "add attacks without gradients (square), or attack through a smooth replacement of the layer (BPDA)",
        model.zero_gradient,
    ),
    Check(
        "saturated loss", "model", "images whose cross-entropy has a gradient of zero", 0.0, None,
        "logits are so large that attacks on the cross-entropy do not move",
        "add an attack on the margin loss (loss: margin)",
        model.saturated_loss,
    ),
    Check(
        "finite difference", "model", "error of the gradient against finite differences", 0.05, 0.5,
        "the gradient of a layer does not belong to its output; gradient attacks go in wrong directions",
        "use the true gradient of the layer or a smooth replacement (BPDA), and add attacks without gradients",
        model.finite_difference,
    ),
    Check(
        "one input", "model", "members of an ensemble that receive other images than the first", None, 0.0,
        "the members were attacked, not the ensemble", "pass the same tensor to all members", model.one_input,
    ),
    Check(
        "collapse", "model", "share of the most frequent prediction, if larger than its class's share", None, 0.95,
        "the model predicts one class; it looks robust because its output is constant",
        "train again with a smaller eps or learning rate, or with balanced classes", model.collapse,
    ),
    Check(
        "large radius", "model", "share of images that are robust at eps 1", None, 0.01,
        "an attacker who may choose any image must always succeed; the gradients are masked",
        "add attacks without gradients, and find the layer that masks the gradient", model.large_radius,
    ),
    Check(
        "monotone", "model", "share of images fooled at one radius and robust at a larger one", None, 0.01,
        "a larger ball contains the smaller one; gradients are masked or the attack is badly tuned",
        "set alpha: null (it then follows eps) and increase steps; if this fails, add attacks without gradients",
        model.monotone,
    ),
    Check(
        "bit depth", "model", "share of attacked images that are harmless once stored", 0.05, None,
        "the perturbation is smaller than a grey level and is lost when the image is stored",
        "report robust_accuracy_stored beside robust_accuracy, or use a radius of several grey levels",
        model.bit_depth,
    ),
    Check(
        "training attack", "model", "share of adv.eps that the training attack cannot reach", 0.0, None,
        "the model was trained on noise of this radius, and on attacks of a smaller one",
        "set adv.allow_weak: false and adv.alpha: auto; report the radius that the training attack reaches",
        model.training_attack,
    ),
    Check(
        "reach", "suite", "share of the ball's width (2 eps) that alpha x steps does not cover", 0.0, 0.5,
        "the attack cannot reach every point of the ball; if this fails, its result is that of a smaller radius",
        "remove alpha (its default is 2.5 eps / steps), or increase steps", suite.reach,
    ),
    Check(
        "targets", "suite", "wrong classes that a search over targets never tries", 0.0, None,
        "the model may be fooled towards a class that no attack targeted", "increase targets", suite.targets,
    ),
    Check(
        "unseen attack", "suite", "1 if all attacks maximise the loss of the training", 0.0, None,
        "the model may be robust only to the attack that it was trained on",
        "add another loss (margin, dlr) or method (square)", suite.unseen_attack,
    ),
    Check(
        "validity", "suite", "attempts outside the ball, or not finite", None, 0.0,
        "the images are not adversarial examples of this threat model", "fix the attack", suite.validity,
    ),
    Check(
        "robust <= clean", "suite", "robust images that are misclassified without an attack", None, 0.0,
        "labels or attack are wrong: an attack cannot make the model more accurate",
        "check that ids and labels of records and data agree",
        suite.below_clean,
    ),
    Check(
        "worst case", "suite", "images whose records are not the worst over all attempts", None, 0.0,
        "robust accuracy is overestimated: a mean over attacks or radii is not a worst case",
        "count an image as robust only if every attempt fails", suite.worst_case,
    ),
    Check(
        "budget", "suite", "share of the radius that failed attacks did not use", 0.1, 0.5,
        "the attack did not use its budget; its result is that of a smaller radius", "increase alpha or steps",
        suite.budget,
    ),
    Check(
        "saturation", "suite", "share of pixels inside the ball after failed attacks", 0.7, None,
        "sign steps should end at the border of the ball; they are too small or oscillate",
        "increase alpha or steps", suite.saturation,
    ),
    Check(
        "sample size", "suite", "factor by which the interval is too wide or the patients are too few", 1.0, None,
        "too imprecise to compare with another number",
        "test on more patients of the rarest class; compare only with the intervals", suite.sample_size,
    ),
    Check(
        "other suites", "suite", "robust accuracy that other suites of the same norm take away", 0.0, 0.1,
        "another suite of this run is stronger at the same radius", "report the stronger suite, or join the two",
        other_suites,
    ),
    Check(
        "gain", "suite", "robust accuracy on images whose gradients do not add up to the change of the margin",
        0.01, 0.1,
        "gradients are exact and useless: at the length of a step the model is another function",
        "add attacks without gradients (square, rays), and find the layer that hides the gradient", gains,
    ),
    Check(
        "direction", "suite", "robust accuracy on images whose gradient turns away along a path", 0.02, 0.1,
        "the gradient of one point says little about the next: the gradients are shattered",
        "add attacks without gradients (square, rays), and find the layer that shatters the gradient", cosines,
    ),
    Check(
        "random step", "suite", "robust accuracy on images whose gradients do not predict a random step",
        0.02, 0.1,
        "the gradient misses what other directions do; a part of the model passes no gradient",
        "add attacks without gradients (square, rays), and find the layer that stops the gradient", errors,
    ),
    Check(
        NOISE, "suite", "share of robust images that noise brings nearer to an error", 0.05, 0.25,
        "the attack is hardly stronger than noise", "add a stronger attack (apgd, or pgd with more steps)",
        noise,
    ),
    Check(
        ONE_STEP, "suite", "robust accuracy that one step takes away", SUSPECT, INVALID,
        "the suite misses images that a single step fools: it is too weak, or the gradients are masked",
        "add fgsm, and increase the steps of the iterative attack", loss_to(ONE_STEP),
    ),
    Check(
        PLAIN_PGD, "suite", "robust accuracy that a plain PGD takes away", SUSPECT, 0.1,
        "the suite is weaker than the standard attack; its number is an upper bound", "add pgd to the suite",
        loss_to(PLAIN_PGD),
    ),
    Check(
        LOGIT_SCALE, "suite", "robust accuracy that only the margin loss takes away", SUSPECT, 0.03,
        "the scale of the logits hides the gradient of the cross-entropy", "add an attack with loss: margin",
        loss_to(LOGIT_SCALE),
    ),
    Check(
        CONVERGENCE, "suite", "robust accuracy that twice the steps take away", SUSPECT, INVALID,
        "the attack has not converged", "double the steps until this passes, or use apgd",
        loss_to(CONVERGENCE),
    ),
    Check(
        RESTARTS, "suite", "robust accuracy that four more random starts take away", 0.01, 0.05,
        "the number depends on one random start", "increase restarts", loss_to(RESTARTS),
    ),
    Check(
        STEP_SIZE, "suite", "robust accuracy that other step sizes take away", SUSPECT, 0.05,
        "the step size is badly tuned", "remove alpha, or use apgd, which adapts its own",
        loss_to(STEP_SIZE),
    ),
    Check(
        ADAPTIVE, "suite", "robust accuracy that APGD towards each wrong class takes away", INVALID, 0.05,
        "steps of a fixed size towards no class in particular are too weak here", "add apgd_t to the suite",
        loss_to(ADAPTIVE),
    ),
    Check(
        SMOOTHED, "suite", "robust accuracy that gradients averaged over the ball take away", INVALID, 0.05,
        "the model is rough inside the ball: attacks end in local optima", "add vmifgsm to the suite",
        loss_to(SMOOTHED),
    ),
    Check(
        BLACK_BOX, "suite", "robust accuracy that an attack without gradients takes away", 0.002, 0.005,
        "an attack that uses less information finds more: the gradients mislead",
        "add square to the suite, and find the layer that masks the gradient", loss_to(BLACK_BOX),
    ),
    Check(
        LABEL_ONLY, "suite", "robust accuracy that an attack on predictions alone takes away", SUSPECT, INVALID,
        "an attack that sees only predictions finds more: gradients and scores mislead",
        "add rays to the suite, and find the layer that hides gradients and scores", loss_to(LABEL_ONLY),
    ),
    Check(
        TOGETHER, "suite", "robust accuracy that all challengers together take away", INVALID, 0.05,
        "no single cause is proved, but the suite misses images that other attacks fool",
        "add more attacks to the suite (autoattack)", loss_to(TOGETHER),
    ),
    Check(
        TRANSFER, "suite", "robust accuracy that images of another model take away", None, 0.01,
        "images made on another model do more than the suite's own: the gradients mislead",
        "add transfer to the suite, and find the layer that masks the gradient", loss_to(TRANSFER),
    ),
)  # fmt: skip
