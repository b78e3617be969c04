"""Build a classifier from its block in params.yaml: a timm architecture and its initial weights."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.params.training import HeadParams, ModelParams
from medrobust.models.classifier import Classifier
from medrobust.models.packaged_weights import PACKAGES, cached_file
from medrobust.models.timm_import import import_timm
from medrobust.models.weight_files import load_weights


def build_classifier(model: ModelParams, classes: list[str]) -> Classifier:
    """A new classifier. Its head is initialised from torch's global random state.

    Raises:
        UserError: timm does not know the architecture or its tag, the image size does not fit it, or the
            weights cannot be fetched or read.
    """
    import torch

    timm = import_timm()
    if not timm.is_model(model.timm):
        near = get_close_matches(model.timm.lower(), timm.list_models(), 5)
        remedy = f"Similar names: {', '.join(near) or 'see timm.list_models()'}"
        raise UserError("params.yaml: models.*.timm", f"timm has no {model.timm!r}", remedy)
    options: dict[str, Any] = {"num_classes": len(classes), "in_chans": 3}
    if "patch" in model.timm:
        _check_patches(model)
    if _pretrained_config(model.timm).fixed_input_size:
        options["img_size"] = model.image_size
    if model.weights == "pretrained":
        backbone = pretrained_backbone(model, **options)
    else:
        backbone = timm.create_model(model.timm, pretrained=False, **options)
    if model.weights == "package":
        load_weights(backbone, cached_file(model.timm, list(backbone.state_dict())))
    elif model.weights not in {"none", "pretrained"}:
        load_weights(backbone, Path(model.weights).expanduser())
    _set_head(backbone, model.head, len(classes))
    config = timm.data.resolve_model_data_config(backbone)
    mean, std = (config["mean"], config["std"]) if model.normalise else ((0.0,) * 3, (1.0,) * 3)
    classifier = Classifier(backbone, classes, model.image_size, list(mean), list(std))
    # Twice as fast for depth-wise convolutions, no slower for others; the weights stay the same.
    return classifier.to(memory_format=torch.channels_last)


def set_trainable(classifier: Classifier, trainable: str) -> None:
    """Freeze all parameters that are not to be trained; the head is always trained.

    Args:
        classifier: changed in place. Frozen modules stay in eval mode, so that their BatchNorm statistics do not
            change.
        trainable: all | head | last:n. The last trains the head and the last n groups (residual or transformer
            blocks) of the backbone, as timm groups its layers from the input to the head.

    Raises:
        UserError: the backbone has fewer groups.
    """
    backbone: Any = classifier.backbone
    if trainable == "all":
        return
    classifier.requires_grad_(False)
    head = backbone.get_classifier()
    for module in head if isinstance(head, tuple) else (head,):
        module.requires_grad_(True)
    if trainable == "head":
        return
    # The group of the head may also hold a last norm or hidden layers: all of it is trained.
    groups = import_timm().models.group_parameters(backbone, backbone.group_matcher(coarse=False))
    wanted, available = int(trainable.removeprefix("last:")), len(groups) - 1
    if wanted > available:
        found = f"{trainable}, but {type(backbone).__name__} has {available} groups of layers"
        raise UserError("params.yaml: models.*.trainable", found, "Use fewer, or set trainable: all")
    for group in sorted(groups)[-wanted - 1 :]:
        for name in groups[group]:
            backbone.get_parameter(name).requires_grad_(True)


def _set_head(backbone: Any, head: HeadParams, classes: int) -> None:
    """Replace timm's linear classifier by the MLP of `head`, if it has one, and initialise the last layer."""
    import torch

    last = backbone.get_classifier()
    if head.widths or head.dropout:
        name = backbone.default_cfg["classifier"]
        if not isinstance(last, torch.nn.Linear):
            found = f"{type(backbone).__name__} does not end in one linear layer"
            raise UserError("params.yaml: models.*.head", found, "Remove models.*.head for this architecture")
        layers, width = [], last.in_features
        for hidden in head.widths:
            layers += [torch.nn.Linear(width, hidden), torch.nn.BatchNorm1d(hidden), torch.nn.GELU()]
            layers += [torch.nn.Dropout(head.dropout)]
            width = hidden
        if not head.widths:
            layers = [torch.nn.Dropout(head.dropout)]
        last = torch.nn.Linear(width, classes)
        backbone.set_submodule(name, torch.nn.Sequential(*layers, last))
    # Start from nearly equal probabilities: EfficientNet's own head starts with logits of ±7 and loses epochs.
    for layer in last if isinstance(last, tuple) else (last,):
        if not isinstance(getattr(layer, "weight", None), torch.Tensor):
            found = f"{type(backbone).__name__} ends in {type(layer).__name__}, not in one layer of weights"
            raise UserError("params.yaml: models.*.timm", found, "Use another architecture")
        torch.nn.init.normal_(layer.weight, std=0.01)
        torch.nn.init.zeros_(layer.bias)


def _check_patches(model: ModelParams) -> None:
    patch = int(model.timm.split("patch")[1].split("_")[0])
    if model.image_size % patch:
        remedy = f"Use a multiple of {patch}, such as {max(model.image_size // patch, 1) * patch}"
        raise UserError("params.yaml: models.*.image_size", f"got {model.image_size} for {model.timm}", remedy)


def _pretrained_config(name: str) -> Any:
    timm = import_timm()
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        architecture, _, tag = name.partition(".")
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or architecture
        raise UserError(
            "params.yaml: models.*.timm", f"{architecture} has no tag {tag!r}", f"Known: {tags}"
        ) from None


def pretrained_backbone(model: ModelParams, **options: Any) -> Any:
    """A timm model with its pretrained weights, from the hub or its local cache.

    Raises:
        UserError: the hub cannot be reached, or has no weights of this architecture.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    timm = import_timm()
    try:
        return timm.create_model(model.timm, pretrained=True, **options)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RuntimeError) as error:
        found = f"timm's weights of {model.timm} cannot be fetched ({type(error).__name__})"
        remedy = (
            "Set weights: none to train from scratch, weights: <path of a .safetensors or .pth file> (`make "
            "weights` writes such files on a machine with the hub), or weights: package for "
            f"{', '.join(PACKAGES)}"
        )
        raise UserError("params.yaml: models.*.weights: pretrained", found, remedy) from None
