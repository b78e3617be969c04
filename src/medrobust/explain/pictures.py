"""The pictures of one model, each with a caption in plain words."""

from pathlib import Path

import numpy as np
import torch

from medrobust.attacks.engine.attempts import worst_case
from medrobust.core.params.explain import ExplainParams
from medrobust.core.seeds import image_seeds
from medrobust.explain import draw
from medrobust.explain.attacked_images import BATCH
from medrobust.explain.chosen_images import RULES, ChosenImage, choose_images
from medrobust.explain.compare_maps import MapComparison
from medrobust.explain.explained_model import ExplainedModel
from medrobust.explain.landscape import feature_map, loss_surface, penultimate

#: Title of the loss surface of the image that a rule chose.
SHORT = {"right": "sure and right", "wrong": "sure and wrong", "fooled": "fooled first"}
#: The reason why a rule chose no image.
EMPTY = {
    "right": "no prediction on a test image is right",
    "wrong": "no prediction on a test image is wrong without an attack",
    "fooled": "the suite fooled no image at any radius",
}


def draw_pictures(
    explained: ExplainedModel, compared: MapComparison, folder: Path, params: ExplainParams, *, images: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Draw all pictures into a folder, those of at most `images` test images per rule.

    Returns:
        Captions by picture, and reasons by the name of what is missing. Git tracks them: an image is named by its
        row in the manifest.
    """
    captions: dict[str, str] = {}
    missing: dict[str, str] = {}
    chosen: list[ChosenImage] = []
    if images:
        worst = worst_case(explained.attempts, explained.suite["eps"])
        chosen = choose_images(explained.predictions, worst, images, params.eps)
        missing |= {rule: why for rule, why in EMPTY.items() if rule not in {image.rule for image in chosen}}
    for panel in make_panels(explained, chosen):
        draw.save(draw.draw_panel(panel), folder, panel.name)
        captions[panel.name] = panel.caption
    if params.surface and chosen:
        captions["surface"] = _draw_surfaces(explained, chosen, folder, params)
    if caption := _draw_features(explained, compared, folder, params):
        captions["features"] = caption
    else:
        missing["features"] = "the model has no penultimate features, or there are fewer than three images"
    if explained.layer is None:
        missing["gradcam"] = "the model has no feature maps for Grad-CAM"
    return captions, missing


def make_panels(explained: ExplainedModel, chosen: list[ChosenImage]) -> list[draw.Panel]:
    """Attack the chosen images, and explain both versions of each for the class predicted for that version."""
    panels = {}
    for eps in {image.eps for image in chosen}:  # images with the same radius share their passes
        group = [image for image in chosen if image.eps == eps]
        some = explained.test.take(np.array([_position(explained, image) for image in group]))
        clean, attacked = some.batch(range(len(some))), explained.attacked(some, eps)
        versions = [_versions(explained, images) for images in (clean, attacked)]
        largest = (attacked - clean).abs().flatten(1).amax(1).tolist()
        for number, image in enumerate(group):
            truth = some.classes[int(some.labels[number])]
            before, after = versions[0][number], versions[1][number]
            rule = RULES[image.rule] + (f" (number {image.number})" if image.number > 1 else "")
            caption = (
                f"{rule[0].upper()}{rule[1:]}: image {some.rows[number]}. Truth: {truth}. "
                f"Prediction when clean: {before.prediction}; when attacked: {after.prediction} "
                f"({explained.suite['name']}, ε {eps:g}; no pixel changes by more than "
                f"{largest[number] * 255:.2g} of 255 grey levels)."
            )
            reach = eps if explained.suite["norm"] == "Linf" else largest[number]
            scale = 0.5 / reach if reach else 1.0
            panels[image] = draw.Panel(f"{image.rule}-{image.number}", truth, before, after, scale, caption)
    return [panels[image] for image in chosen]


def _position(explained: ExplainedModel, image: ChosenImage) -> int:
    return int(np.flatnonzero(explained.test.ids == image.id)[0])


def _versions(explained: ExplainedModel, images: torch.Tensor) -> list[draw.ImageVersion]:
    """One version of some images (n×C×H×W) with maps and predictions."""
    probabilities, classes = explained.probabilities(images), explained.test.classes
    maps = explained.maps(images, probabilities.argmax(1))
    return [
        draw.ImageVersion(
            image.permute(1, 2, 0).numpy().squeeze(),
            {kind: own[number] for kind, own in maps.items()},
            f"{classes[probabilities[number].argmax()]} ({probabilities[number].max():.0%})",
        )
        for number, image in enumerate(images)
    ]


def _draw_surfaces(
    explained: ExplainedModel, chosen: list[ChosenImage], folder: Path, params: ExplainParams
) -> str:
    """Draw the loss around the first image of each rule; returns the caption."""
    norm, surfaces = explained.suite["norm"], {}
    for chosen_image in (image for image in chosen if image.number == 1):
        row = [_position(explained, chosen_image)]
        image = explained.test.batch(row).to(explained.device)
        label = explained.test.targets(row).to(explained.device)
        seed = image_seeds([chosen_image.id], explained.seed).to(explained.device)
        surfaces[SHORT[chosen_image.rule]] = loss_surface(
            explained.model, image, label, seed, params.eps, norm, params.surface
        )
    draw.save(draw.draw_surfaces(surfaces, params.eps), folder, "surface")
    return (
        f"The loss around the pictured images, in units of ε = {params.eps:g}: to the right along the gradient, "
        "upwards along a random direction. The cross is the image, the outline is the limit of the attack (a "
        "diamond where each pixel has its own limit: along both directions at once, some pixels move twice). "
        "Gradient attacks need smooth slopes; a jagged surface means that their gradients mislead them."
    )


def _draw_features(
    explained: ExplainedModel, compared: MapComparison, folder: Path, params: ExplainParams
) -> str | None:
    """Draw the penultimate features; returns the caption, or None if there is too little to draw."""
    test = explained.test
    batches = (test.batch(rows) for rows in torch.arange(len(test)).split(BATCH))
    clean = penultimate(explained.model, batches)
    if clean is None or min(clean.shape) < 3:
        return None
    attacked = penultimate(explained.model, iter(compared.attacked.split(BATCH)))
    assert attacked is not None
    joint = params.tsne == "attacked"
    features = feature_map(clean, attacked, explained.seed, joint=joint)
    draw.save(draw.draw_features(features, test.labels, compared.rows, test.classes), folder, "features")
    layout = "shows clean and attacked images in one layout" if joint else "cannot project further images"
    return (
        f"The input of the last layer for {len(clean)} clean test images, one point each, and (left) where the "
        f"attack moves {len(attacked)} of them. Left: the two directions in which clean images differ most "
        f"({features.explained:.0%} of the variance). Right: t-SNE, which keeps neighbours together and "
        f"{layout}; distances between its groups mean nothing."
    )
