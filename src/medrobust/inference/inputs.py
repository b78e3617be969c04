"""Everything that users hand over as images (paths, pictures, arrays, tensors), as one kind of input."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrobust.core.errors import UserError
from medrobust.data.images import Raster
from medrobust.data.inputs import Fault, InputImage
from medrobust.inference.loaded import LoadedModel


def to_inputs(images: Any, model: LoadedModel) -> list[InputImage]:
    """Images ready for the model.

    Args:
        images: a path (file, folder, table), a picture of Pillow, uint8 arrays (H×W, H×W×3, n×H×W, n×H×W×3,
            n×C×H×W), float arrays or tensors (n×C×H×W in [0, 1]), or a list of them. Arrays of the stored size are
            used as they are; of another size they are rounded to 8 bits and resized as files are.

    Raises:
        UserError: an image cannot be used; the first such fault.
    """
    from PIL import Image

    match images:
        case str() | Path():
            found = list(model.reader().find([Path(images)]).read())
            if fault := next((one for one in found if isinstance(one, Fault)), None):
                raise UserError(fault.file, fault.reason, "Fix the file, or leave it out")
            return [one for one in found if isinstance(one, InputImage)]
        case Image.Image():
            return [InputImage(_fitted(images, model), "picture")]
        case list() | tuple():
            return [one for part in images for one in to_inputs(part, model)]
        case Tensor() | np.ndarray():
            array = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
            return _of_bytes(array, model) if array.dtype.kind in "ui" else _of_floats(array, model)
    raise UserError(
        "images", type(images).__name__, "Use paths, pictures of Pillow, arrays, tensors, or a list of them"
    )


def to_batch(inputs: list[InputImage], device: torch.device) -> Tensor:
    """Float32 images n×C×S×S in [0, 1], from the same numbers as a batch of the prepared data."""
    arrays = np.stack([one.pixels for one in inputs])
    if arrays.dtype != np.uint8:
        return torch.from_numpy(arrays).to(device)
    pixels = torch.from_numpy(arrays)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return pixels.contiguous().float().div_(torch.full((), 255.0)).to(device)


def _fitted(content: Any, model: LoadedModel) -> np.ndarray:
    try:
        return model.reader().fit(content)
    except ValueError as error:
        raise UserError("images", str(error), "Fix the image, or leave it out") from None


def _of_bytes(array: np.ndarray, model: LoadedModel) -> list[InputImage]:
    """Whole numbers: pictures with the channels last, or a batch with the channels second."""
    from PIL import Image

    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3):
        array = array[None]
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.dtype.itemsize > 2 or array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3):
        found = f"{array.dtype} of shape {array.shape}"
        raise UserError("images", found, "Use uint8 images H×W, H×W×3, n×H×W or n×H×W×3; volumes as NIfTI files")
    return [InputImage(_fitted(Image.fromarray(np.ascontiguousarray(one)), model), "array") for one in array]


def _of_floats(array: np.ndarray, model: LoadedModel) -> list[InputImage]:
    if array.ndim != 4 or not len(array) or array.shape[1] not in (1, 3):
        raise UserError("images", f"shape {array.shape}", "Use n×C×H×W with n above 0 and 1 or 3 channels")
    if not (float(array.min()) >= 0 and float(array.max()) <= 1):
        found = f"values from {float(array.min()):.3g} to {float(array.max()):.3g}"
        raise UserError("images", found, "Use pixels in [0, 1] (divide 8-bit pixels by 255)")
    stored = None
    if model.use is not None:
        size = model.use.input.image_size
        stored = (model.use.input.channels, size, size)
    if stored is None or array.shape[1:] == stored:
        return [InputImage(one, "tensor") for one in array.astype(np.float32)]
    levels = np.rint(array * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    pictures = levels[..., 0] if levels.shape[3] == 1 else levels
    return [InputImage(_fitted(Raster(np.ascontiguousarray(one)), model), "tensor") for one in pictures]
