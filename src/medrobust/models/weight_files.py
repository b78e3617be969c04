"""Load the weights of a backbone from a file, as training scripts and model zoos write them."""

import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError

#: Keys under which training scripts save the weights, beside the epoch and the optimiser.
WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher")
#: Beginnings of names that wrappers of a network add; self-supervised training has a teacher's backbone.
PREFIXES = ("module.", "_orig_mod.", "model.", "teacher.", "backbone.", "encoder.")
#: Start of the text that git leaves in place of a large file.
LFS = b"version https://git-lfs"
#: Exceptions of reading a file that holds no weights; the `pickle` module documents most of them.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    ImportError, OSError,
)  # fmt: skip


def load_weights(backbone: Any, path: Path) -> None:
    """Load a timm model's weights from a file. The head in the file is ignored; everything else must fit.

    timm's own filter of the architecture runs first: it renames the keys of original releases and resamples
    position embeddings of another grid.

    Raises:
        UserError: the file cannot be read, or its tensors do not fit the architecture or are not finite.
    """
    own = backbone.state_dict()
    head = backbone.default_cfg["classifier"]
    heads = (head,) if isinstance(head, str) else tuple(head)
    state = _without_prefixes(read_weights(path), {key for key in own if not key.startswith(heads)})
    if timm_filter := getattr(import_module(type(backbone).__module__), "checkpoint_filter_fn", None):
        state = timm_filter(state, backbone)
    fitting = {key: value for key, value in state.items() if not key.startswith(heads)}
    wrong = [key for key, value in fitting.items() if key not in own or own[key].shape != value.shape]
    lacking = [key for key in own if key not in fitting and not key.startswith(heads)]
    if wrong or lacking:
        key = (wrong + lacking)[0]
        shapes = [tuple(part[key].shape) if key in part else "none" for part in (own, fitting)]
        found = f"does not fit {type(backbone).__name__}: {len(wrong)} wrong, {len(lacking)} missing keys"
        found += f" ({key}: expected {shapes[0]}, found {shapes[1]})"
        raise UserError(str(path), found, "Use weights of this architecture and size")
    if bad := [key for key, value in fitting.items() if not value.isfinite().all()]:
        found = f"has values that are not finite ({bad[0]})"
        raise UserError(str(path), found, "Use weights without NaN or infinity")
    backbone.load_state_dict(fitting, strict=False)


def read_weights(path: Path) -> dict[str, Any]:
    """The tensors of a file by name; no code in the file is executed.

    Raises:
        UserError: there is no such file, or it holds no weights.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)  # from whichever device
    except FileNotFoundError:
        remedy = "Set the path of an existing file, or weights: none | pretrained | package"
        raise UserError(f"params.yaml: models.*.weights: {path}", "no such file", remedy) from None
    except (SafetensorError, *UNREADABLE) as error:
        if _starts_with(path, LFS):
            raise UserError(str(path), "is a pointer of git LFS, not the file", "Run git lfs pull") from None
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
        remedy = "Download the file again, or save the model's state_dict(); files that run code are not read"
        raise UserError(str(path), f"holds no weights ({first})", remedy) from None
    while wrapper := next((key for key in WRAPPERS if _is_dict_under(state, key)), None):
        state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        found = f"holds a {type(state).__name__} that is not a dict of names and tensors"
        raise UserError(str(path), found, "Save the model's state_dict()")
    return state


def _starts_with(path: Path, start: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _is_dict_under(state: Any, key: str) -> bool:
    return isinstance(state, dict) and isinstance(state.get(key), dict)


def _without_prefixes(state: dict[str, Any], own: set[str]) -> dict[str, Any]:
    """The tensors under a wrapper's prefix, without it, until some names are `own`, those of the backbone."""
    while not state.keys() & own:
        prefix = next((p for p in PREFIXES if any(key.startswith(p) for key in state)), None)
        if prefix is None:
            return state  # perhaps an original release, whose names timm's filter knows
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state
