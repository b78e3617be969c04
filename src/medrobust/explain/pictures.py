"""The pictures of one model, each with a caption in plain words."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust.attacks.engine.attempts import worst_case
from medrobust.core.params.explain import ExplainParams
from medrobust.core.seeds import image_seeds
from medrobust.explain import draw
from medrobust.explain.choice import RULES, Choice, choose
from medrobust.explain.compare import Comparison
from medrobust.explain.landscape import feature_map, loss_surface, penultimate
from medrobust.explain.subject import BATCH, Subject

#: Above the loss surface of the image that a rule chose.
SHORT = {"right": "sure and right", "wrong": "sure and wrong", "fooled": "fooled first"}
#: What is said of a rule that chose no image.
EMPTY = {
    "right": "no test image is answered rightly",
    "wrong": "no test image is answered wrongly without an attack",
    "fooled": "the suite fooled no image at any radius",
}


def draw_all(
    subject: Subject, found: Comparison, folder: Path, params: ExplainParams
) -> tuple[dict[str, str], dict[str, str]]:
    """Draw everything into a folder; captions by picture, and reasons by the name of what is missing."""
    captions: dict[str, str] = {}
    missing: dict[str, str] = {}
    choices: list[Choice] = []
    if params.images:
        worst = worst_case(subject.attempts, subject.suite["eps"])
        choices = choose(subject.predictions, worst, params.images, params.eps)
        missing |= {rule: why for rule, why in EMPTY.items() if rule not in {choice.rule for choice in choices}}
    for panel in make_panels(subject, choices):
        draw.save(draw.draw_panel(panel), folder, panel.name)
        captions[panel.name] = panel.caption
    if params.surface and choices:
        captions["surface"] = _surfaces(subject, choices, folder, params)
    if words := _features(subject, found, folder):
        captions["features"] = words
    else:
        missing["features"] = "the model has no penultimate features of three images or more"
    if subject.layer is None:
        missing["gradcam"] = "the model has no feature maps that Grad-CAM could look at"
    return captions, missing


def make_panels(subject: Subject, choices: list[Choice]) -> list[draw.Panel]:
    """Attack the chosen images and explain both versions, each for the class that the model answers for it."""
    panels = {}
    for eps in {choice.eps for choice in choices}:  # those of one radius share their passes
        group = [choice for choice in choices if choice.eps == eps]
        some = subject.test.take(np.array([_place(subject, choice) for choice in group]))
        clean, attacked = some.batch(range(len(some))), subject.attacked(some, eps)
        sides = [_sides(subject, images) for images in (clean, attacked)]
        largest = (attacked - clean).abs().flatten(1).amax(1).tolist()
        for number, choice in enumerate(group):
            truth = some.classes[int(some.labels[number])]
            own = sides[0][number], sides[1][number]
            panels[choice] = _panel(choice, *own, truth, largest[number], subject.suite)
    return [panels[choice] for choice in choices]


def _place(subject: Subject, choice: Choice) -> int:
    return int(np.flatnonzero(subject.test.ids == choice.id)[0])


def _sides(subject: Subject, images: torch.Tensor) -> list[draw.Side]:
    """One version of some images (n×C×H×W) with its maps and answers."""
    chances, classes = subject.probabilities(images), subject.test.classes
    maps = subject.maps(images, chances.argmax(1))
    return [
        draw.Side(
            image.permute(1, 2, 0).numpy().squeeze(),
            {kind: found[number] for kind, found in maps.items()},
            f"{classes[chances[number].argmax()]} ({chances[number].max():.0%})",
        )
        for number, image in enumerate(images)
    ]


def _panel(
    choice: Choice, clean: draw.Side, attacked: draw.Side, truth: str, largest: float, suite: dict[str, Any]
) -> draw.Panel:
    """The picture of one image; `largest` is the largest change of a pixel."""
    rule = RULES[choice.rule] + (f" (number {choice.number})" if choice.number > 1 else "")
    caption = (
        f"{rule[0].upper()}{rule[1:]}: {choice.id}. Truth: {truth}. Clean, the model says {clean.says}; "
        f"attacked, {attacked.says} ({suite['name']}, ε {choice.eps:g}; no pixel changes by more than "
        f"{largest * 255:.2g} of 255 grey levels)."
    )
    reach = choice.eps if suite["norm"] == "Linf" else largest
    scale = 0.5 / reach if reach else 1.0
    return draw.Panel(f"{choice.rule}-{choice.number}", truth, clean, attacked, scale, caption)


def _surfaces(subject: Subject, choices: list[Choice], folder: Path, params: ExplainParams) -> str:
    """The loss around the first image of each rule."""
    norm, surfaces = subject.suite["norm"], {}
    for choice in (choice for choice in choices if choice.number == 1):
        place = [_place(subject, choice)]
        image = subject.test.batch(place).to(subject.device)
        label = subject.test.targets(place).to(subject.device)
        seed = image_seeds([choice.id], subject.seed).to(subject.device)
        found = loss_surface(subject.model, image, label, seed, params.eps, norm, params.surface)
        surfaces[SHORT[choice.rule]] = found
    draw.save(draw.draw_surfaces(surfaces, params.eps), folder, "surface")
    return (
        f"The loss around the pictured images, in units of ε = {params.eps:g}: to the right along the gradient, "
        "upwards along a random direction; cross: the image, outline: how far the attack may go (a diamond where "
        "each pixel has its own limit: along both directions at once, some pixels move twice). Smooth slopes are "
        "what gradient attacks need; jagged ground would mean that they are led astray."
    )


def _features(subject: Subject, found: Comparison, folder: Path) -> str | None:
    """The picture of penultimate features and its caption; None if there is too little to show."""
    test = subject.test
    batches = (test.batch(rows) for rows in torch.arange(len(test)).split(BATCH))
    clean = penultimate(subject.model, batches)
    if clean is None or min(clean.shape) < 3:
        return None
    attacked = penultimate(subject.model, iter(found.attacked.split(BATCH)))
    assert attacked is not None
    laid_out = feature_map(clean, attacked, subject.seed)
    draw.save(draw.draw_features(laid_out, test.labels, found.rows, test.classes), folder, "features")
    return (
        f"What the last layer sees of {len(clean)} clean test images, one point each, and (left) where the attack "
        f"moves {len(attacked)} of them. Left: the two directions in which clean images differ most "
        f"({laid_out.explained:.0%} of the variance). Right: t-SNE, which keeps neighbours together and cannot "
        "place further images; distances between its groups mean nothing."
    )
