"""Build a classifier from its block in params.yaml: a timm architecture, and weights from one of three places."""

from pathlib import Path
from typing import Any

from medrobust.errors import UserError
from medrobust.models.classifier import Classifier
from medrobust.params.training import ModelParams


def build_classifier(model: ModelParams, classes: list[str]) -> Classifier:
    """A new classifier; its head is drawn from torch's global random state.

    Raises:
        UserError: timm does not know the architecture, the image size does not fit its patches, or the
            weights cannot be had.
    """
    import timm
    import torch

    if not timm.is_model(model.timm):
        near = timm.list_models(f"*{model.timm[:6]}*")[:5]
        remedy = f"Names that come near: {', '.join(near) or 'see timm.list_models()'}"
        raise UserError("params.yaml: models.*.timm", f"timm has no {model.timm!r}", remedy)
    options: dict[str, Any] = {"num_classes": len(classes), "in_chans": 3}
    if "patch" in model.timm:
        _check_patches(model)
        options["img_size"] = model.image_size
    if model.weights == "pretrained":
        backbone = _pretrained(model, options)
    else:
        backbone = timm.create_model(model.timm, pretrained=False, **options)
    if model.weights not in {"none", "pretrained"}:
        _load_file(backbone, Path(model.weights))
    # Every run starts from even odds: EfficientNet's own head starts with logits of ±7 and unlearns for epochs.
    head = backbone.get_classifier()
    torch.nn.init.normal_(head.weight, std=0.01)
    torch.nn.init.zeros_(head.bias)
    config = timm.data.resolve_model_data_config(backbone)
    classifier = Classifier(backbone, classes, model.image_size, list(config["mean"]), list(config["std"]))
    # Twice as fast for depth-wise convolutions, no slower for others; the numbers stay those of the model.
    return classifier.to(memory_format=torch.channels_last)


def _check_patches(model: ModelParams) -> None:
    patch = int(model.timm.split("patch")[1].split("_")[0])
    if model.image_size % patch:
        remedy = f"Take a multiple of {patch}, such as {max(model.image_size // patch, 1) * patch}"
        raise UserError("params.yaml: models.*.image_size", f"got {model.image_size} for {model.timm}", remedy)


def _pretrained(model: ModelParams, options: dict[str, Any]) -> Any:
    import timm
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return timm.create_model(model.timm, pretrained=True, **options)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RuntimeError) as error:
        found = f"timm's weights of {model.timm} cannot be fetched ({type(error).__name__})"
        remedy = "Set weights: none to train from scratch, or weights: <path of a .safetensors or .pth file>"
        raise UserError("params.yaml: models.*.weights: pretrained", found, remedy) from None


def _load_file(backbone: Any, path: Path) -> None:
    """Load a backbone's weights; the file's own head is left out, everything else must fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except FileNotFoundError:
        remedy = "Give the path of a file, or weights: none | pretrained"
        raise UserError(f"params.yaml: models.*.weights: {path}", "no such file", remedy) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(str(path), f"no weights ({error})", "Fetch the file again") from None
    head = backbone.default_cfg["classifier"]
    heads = (head,) if isinstance(head, str) else tuple(head)
    own = backbone.state_dict()
    fitting = {key: value for key, value in state.items() if not key.startswith(heads)}
    wrong = [k for k, v in fitting.items() if k not in own or own[k].shape != v.shape]
    lacking = [key for key in own if key not in fitting and not key.startswith(heads)]
    if wrong or lacking:
        found = f"does not fit {type(backbone).__name__}: {len(wrong)} wrong, {len(lacking)} missing keys"
        raise UserError(
            str(path), f"{found} ({(wrong + lacking)[0]})", "Give weights of this architecture and size"
        )
    backbone.load_state_dict(fitting, strict=False)
