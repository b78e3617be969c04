"""Regions whose pixels an attack may change. The idea is from Kulkarni & Bhambani (2021), the regions are ours."""

from typing import Literal

import torch
from torch import Tensor, nn

from medrobust.attacks.base import frozen
from medrobust.core.errors import UserError
from medrobust.models.feature_maps import grad_cam, map_layers

#: `background` is the complement of `foreground`; `outlined` is the publisher's mask, from the images of a subset.
RegionName = Literal["foreground", "background", "gradcam", "outlined"]

#: A name, or an expert's mask, bool n×1×H×W; None = all pixels.
Region = RegionName | Tensor | None


def find_mask(model: nn.Module, images: Tensor, labels: Tensor, region: str | Tensor, top: float) -> Tensor:
    """The mask of a region, which may be the mask itself: which pixels may change, bool n×1×H×W.

    For `gradcam`, the model is a `Classifier` or another network with `maps`, and `top` the share of pixels.

    Raises:
        UserError: the mask has another size than the images, the network has no feature maps for Grad-CAM, or the
            masks of `outlined` are not given.
    """
    if isinstance(region, str) and region == "outlined":
        raise UserError("attack.mask", "no masks beside the images", "Call for_images, or pass the masks")
    if isinstance(region, Tensor):
        if region.shape[0] != len(images) or region.shape[-2:] != images.shape[-2:]:
            found = f"{tuple(region.shape)} for images {tuple(images.shape)}"
            raise UserError("attack.mask", found, "Use one mask per image, n x 1 x H x W")
        return region.to(images.device).bool().view(len(images), 1, *images.shape[-2:])
    if region == "gradcam":
        importance = gradcam(model, images, labels).flatten(1)
        count = max(1, round(top * importance.shape[1]))
        best = importance.topk(count, dim=1).indices
        chosen = torch.zeros_like(importance, dtype=torch.bool).scatter(1, best, True)
        return chosen.view(len(images), 1, *images.shape[-2:])
    inside = foreground(images)
    return ~inside if region == "background" else inside


def foreground(images: Tensor) -> Tensor:
    """Pixels whose mean over channels exceeds the image's own threshold (Otsu 1979), bool n×1×H×W."""
    bins = (images.mean(1).flatten(1) * 255).round().long()
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    share = torch.zeros(len(bins), 256, dtype=torch.float64, device=images.device)
    share.scatter_add_(1, bins, torch.full_like(bins, 1, dtype=torch.float64)).div_(bins.shape[1])
    below, mass = share.cumsum(1), (share * levels).cumsum(1)
    between = (mass[:, -1:] * below - mass) ** 2 / (below * (1 - below)).clamp_min(1e-12)
    best, threshold = between.max(1, keepdim=True)
    return ((bins > threshold) & (best > 0)).view(len(images), 1, *images.shape[-2:])


def gradcam(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Importance of each pixel for the true class, n×H×W, 0 to 1 (`feature_maps.grad_cam`).

    The maps are those of the last of `feature_maps.map_layers`. An ensemble's importance is its members' mean.

    Raises:
        UserError: the network is no `Classifier` and no ensemble of them.
    """
    members = getattr(model, "members", None)
    if members is not None:
        return torch.stack([gradcam(member, images, labels) for member in members]).mean(0)
    if not (layers := map_layers(model)):
        raise UserError("attack.mask", f"no Grad-CAM for {type(model).__name__}", "Give the masks as a tensor")
    with frozen(model):
        maps, _ = grad_cam(model, images, labels, layers[-1])
    return torch.from_numpy(maps).to(images.device)
