"""Where a model keeps images: its features in two dimensions, and its loss around an image."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import Norm, ascent, distance, frozen, input_gradient, per_image
from medrobust.core.seeds import normal, signs

BATCH = 64
#: Neighbours that t-SNE looks at, where there are images enough (its authors use 5 to 50).
PERPLEXITY = 30
#: How far the loss surface reaches, in eps.
REACH = 2.0
#: Points of the outline of a ball: each quarter turn is one of them, so that corners there are kept.
OUTLINE = 120


@dataclass(frozen=True)
class FeatureMap:
    """Two pictures of the penultimate features of n clean images, and m attacked ones in the first.

    Attributes:
        clean: n×2; first two principal components of the clean features.
        attacked: m×2; attacked features projected onto the same components.
        explained: share of the clean features' variance that the two components hold.
        tsne: n×2; t-SNE of the clean features; None of fewer than four images. It has no projection of other
            images: what it would show of attacked ones would change the places of the clean ones.
    """

    clean: np.ndarray
    attacked: np.ndarray
    explained: float
    tsne: np.ndarray | None


@dataclass(frozen=True)
class Surface:
    """The loss in a plane through an image.

    Attributes:
        offsets: rising, in pixel units, of either direction.
        losses: nats, points×points: rows along the random direction, columns along the gradient, both rising.
        outline: n×2, closed, in pixel units along the gradient and along the random direction: where the plane
            leaves the attack's ball. In Linf it is a diamond (the corner (eps, eps) of the square changes each
            pixel by 2·eps or not at all), in L2 an ellipse, nearly a circle.
    """

    offsets: np.ndarray
    losses: np.ndarray
    outline: np.ndarray


def penultimate(model: nn.Module, images: Iterator[Tensor]) -> np.ndarray | None:
    """Penultimate features of batches of images, float32 n×D; None of a model that has none to show."""
    if not hasattr(model, "features"):
        return None
    device = next(model.parameters()).device
    with torch.no_grad():
        parts = [model.features(batch.to(device)).float().cpu() for batch in images]  # type: ignore[operator]
    return torch.cat(parts).numpy()


def feature_map(clean: np.ndarray, attacked: np.ndarray, seed: int) -> FeatureMap:
    """Lay clean features (n×D) out in two dimensions and project attacked ones (m×D) where the method allows it.

    Principal components (Pearson 1901) are fitted on clean images and project others exactly; t-SNE (van der
    Maaten & Hinton 2008) keeps neighbours together but has no transform.

    Args:
        clean: n×D, n at least 2.
        attacked: m×D.
        seed: of t-SNE.
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
        perplexity = min(PERPLEXITY, (len(clean) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(clean)
    share = float(pca.explained_variance_ratio_.sum())
    return FeatureMap(pca.transform(clean), pca.transform(attacked), share, tsne)


def loss_surface(
    model: nn.Module, image: Tensor, label: Tensor, seed: Tensor, eps: float, norm: Norm, points: int
) -> Surface:
    """Cross-entropy of the true class around an image, along the gradient and a random direction.

    Both directions have length 1 in the norm (in Linf: the sign of the gradient, and random signs), so that an
    offset of eps along one of them alone is the border of the ball. Images are clipped to [0, 1]. A surface that
    is flat or jagged along the gradient and falls nowhere hints at masked gradients (Tramèr et al. 2018).

    Args:
        model: in eval mode.
        image: 1×C×H×W in [0, 1].
        label: int64, 1.
        seed: int64, 1; of the random direction.
        eps: the surface reaches `REACH` times so far.
        norm: of the ball.
        points: a side.
    """
    with frozen(model):
        gradient = input_gradient(model, image, lambda logits, _: F.cross_entropy(logits, label))[2]
        steepest, shape = ascent(gradient, norm), tuple(image.shape[1:])
        chance = signs(seed, 1, shape) if norm == "Linf" else normal(seed, 1, shape)
        chance = ascent(chance.to(image.device), norm)
        offsets = torch.linspace(-REACH * eps, REACH * eps, points, device=image.device)
        rows, columns = torch.meshgrid(offsets, offsets, indexing="ij")
        losses = []
        with torch.no_grad():
            for down, right in zip(rows.flatten().split(BATCH), columns.flatten().split(BATCH), strict=True):
                moved = (image + per_image(right) * steepest + per_image(down) * chance).clamp(0, 1)
                losses.append(F.cross_entropy(model(moved), label.expand(len(moved)), reduction="none"))
    outline = _outline(steepest, chance, eps, norm)
    return Surface(offsets.cpu().numpy(), torch.cat(losses).view(points, points).cpu().numpy(), outline)


def _outline(right: Tensor, up: Tensor, eps: float, norm: Norm) -> np.ndarray:
    """Where a·right + b·up has length eps: (a, b) all the way round, OUTLINE + 1 points; both are 1×C×H×W."""
    turns = torch.linspace(0, 2 * torch.pi, OUTLINE + 1, dtype=torch.float64)
    rays = torch.stack([turns.cos(), turns.sin()], 1)
    right, up = right.cpu().double(), up.cpu().double()
    # A gradient of zero moves nothing: no ball ends there.
    lengths = [float(distance(a * right + b * up, torch.zeros_like(up), norm)) for a, b in rays.tolist()]
    return (eps * rays / torch.tensor(lengths).clamp_min(1e-6)[:, None]).numpy()
