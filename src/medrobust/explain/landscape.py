"""A model's penultimate features in two dimensions, and its loss around an image."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import frozen, input_gradient
from medrobust.attacks.projection import Norm, ascent, distance, per_image
from medrobust.core.seeds import normal, signs

BATCH = 64
#: Perplexity of t-SNE if there are enough images (its authors use 5 to 50).
PERPLEXITY = 30
#: Half the side of the loss surface, in eps.
REACH = 2.0
#: Points of the outline of a ball; each quarter turn is one of them, so that the corners there are drawn.
OUTLINE = 120


@dataclass(frozen=True)
class FeatureMap:
    """Penultimate features of n clean (n×2) and m attacked (m×2) images along two principal components.

    `explained` is the share of the clean features' variance in the two components. `tsne` has the clean images
    (n×2), or the clean images followed by the attacked ones. It is None for fewer than four clean images.
    """

    clean: np.ndarray
    attacked: np.ndarray
    explained: float
    tsne: np.ndarray | None


@dataclass(frozen=True)
class Surface:
    """The loss in a plane through an image.

    Attributes:
        offsets: ascending, in pixel units, for both directions.
        losses: in nats, points×points; rows along the random direction, columns along the gradient, ascending.
        outline: n×2, closed, in pixel units along the gradient and along the random direction: where the plane
            leaves the attack's ball (a diamond in Linf, nearly a circle in L2; see docs/explanations.md).
    """

    offsets: np.ndarray
    losses: np.ndarray
    outline: np.ndarray


def penultimate(model: nn.Module, images: Iterator[Tensor]) -> np.ndarray | None:
    """Penultimate features of batches of images, float32 n×D; None for a model without `features`."""
    if not hasattr(model, "features"):
        return None
    device = next(model.parameters()).device
    with torch.no_grad():
        parts = [model.features(batch.to(device)).float().cpu() for batch in images]  # type: ignore[operator]
    return torch.cat(parts).numpy()


def feature_map(clean: np.ndarray, attacked: np.ndarray, seed: int, *, joint: bool = False) -> FeatureMap:
    """Clean features (n×D) in two dimensions, and attacked ones (m×D) where the method can project them.

    Principal components (Pearson 1901) are fitted on clean images and project others exactly. t-SNE (van der
    Maaten & Hinton 2008) keeps neighbours together but cannot project other images; with `joint` it lays out the
    attacked ones too. n is at least 2.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    scale = clean.std(0)
    scale[scale == 0] = 1
    middle = clean.mean(0)
    clean, attacked = (clean - middle) / scale, (attacked - middle) / scale
    pca = PCA(n_components=2, svd_solver="full").fit(clean)
    tsne = None
    if len(clean) > 3:
        shown = np.concatenate([clean, attacked]) if joint else clean
        perplexity = min(PERPLEXITY, (len(shown) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(shown)
    share = float(pca.explained_variance_ratio_.sum())
    return FeatureMap(pca.transform(clean), pca.transform(attacked), share, tsne)


def loss_surface(
    model: nn.Module, image: Tensor, label: Tensor, seed: Tensor, eps: float, norm: Norm, points: int
) -> Surface:
    """Cross-entropy of the true class around an image, along the gradient and a random direction.

    Both directions have length 1 in the norm (in Linf: the sign of the gradient, and random signs), so an offset
    of eps along one of them reaches the border of the ball. Images are clipped to [0, 1]. A surface that is flat
    or jagged along the gradient and falls nowhere is a sign of masked gradients (Tramèr et al. 2018).

    The model is in eval mode; the image is 1×C×H×W in [0, 1], label and seed are int64, 1. The surface extends to
    `REACH` times eps, with `points` per side.
    """
    with frozen(model):
        gradient = input_gradient(model, image, lambda logits, _: F.cross_entropy(logits, label))[2]
        steepest, shape = ascent(gradient, norm), tuple(image.shape[1:])
        random = signs(seed, 1, shape) if norm == "Linf" else normal(seed, 1, shape)
        random = ascent(random.to(image.device), norm)
        offsets = torch.linspace(-REACH * eps, REACH * eps, points, device=image.device)
        rows, columns = torch.meshgrid(offsets, offsets, indexing="ij")
        losses = []
        with torch.no_grad():
            for down, right in zip(rows.flatten().split(BATCH), columns.flatten().split(BATCH), strict=True):
                moved = (image + per_image(right) * steepest + per_image(down) * random).clamp(0, 1)
                losses.append(F.cross_entropy(model(moved), label.expand(len(moved)), reduction="none"))
    outline = _outline(steepest, random, eps, norm)
    return Surface(offsets.cpu().numpy(), torch.cat(losses).view(points, points).cpu().numpy(), outline)


def _outline(right: Tensor, up: Tensor, eps: float, norm: Norm) -> np.ndarray:
    """OUTLINE + 1 points (a, b) at which a·right + b·up has length eps; both directions are 1×C×H×W."""
    turns = torch.linspace(0, 2 * torch.pi, OUTLINE + 1, dtype=torch.float64)
    rays = torch.stack([turns.cos(), turns.sin()], 1)
    right, up = right.cpu().double(), up.cpu().double()
    # A gradient of zero changes no pixel, so the ball has no border in that direction.
    lengths = [float(distance(a * right + b * up, torch.zeros_like(up), norm)) for a, b in rays.tolist()]
    return (eps * rays / torch.tensor(lengths).clamp_min(1e-6)[:, None]).numpy()
