"""What the use of a published model needs beside its weights: `use.json` in its folder."""

from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from medrobust.core.errors import UserError
from medrobust.core.params.base import Block, Count, Positive, Share
from medrobust.core.params.data import InputParams
from medrobust.core.records import read_json

USE, SUITES = "use.json", "suites.json"
#: Folders in that of a model: its guard, and the model of patients that reads its outputs.
GUARD, PATIENT = "guard", "patient"


class StoredInput(InputParams):
    """What `prepare` did with a file: the settings of params.yaml, and what `data.images.to_raster` always does.

    A file without the last two is of a version that already did the same, so it is answered with the same pixels.

    Attributes:
        resampling: the filter that resizes an image, by Pillow's name.
        fit: how an image becomes square. `squash`: each axis is scaled by itself, nothing is cut or padded.
    """

    resampling: Literal["bilinear"] = "bilinear"
    fit: Literal["squash"] = "squash"


class Use(Block):
    """How files become the model's input, and how its answers are calibrated.

    Attributes:
        input: what `prepare` did with a file.
        slices: whether the model was trained on slices of volumes, so that a volume or series is an input.
        temperature: divides the logits of images; fitted on clean validation images. None: not fitted.
        patient_temperature: the same of the model of patients.
        ordered: whether the classes are grades.
        bootstrap: resamples of whole patients for each interval (`report.bootstrap`), of which `confidence` is
            the confidence.
        grid: Grad-CAM uses the deepest layer with at least so many cells per side (`explain.grid`).
    """

    input: StoredInput
    slices: bool
    temperature: Positive | None
    patient_temperature: Positive | None
    ordered: bool
    bootstrap: Count
    confidence: Share
    grid: Count


def read_use(folder: Path) -> Use | None:
    """The content of `use.json`; None for the folder of a model that was not published.

    Raises:
        UserError: the file is damaged, or has a key or value that this version does not know.
    """
    path = folder / USE
    if not path.is_file():
        return None
    content: Any = read_json(path)
    try:
        return Use.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("literal_error", "extra_forbidden"):
            found = f"has {key}: {first['input']!r}, which medrobust {version('medrobust')} does not serve"
            raise UserError(str(path), found, "Install the version that published the model") from None
        found = f"is damaged ({key}: {first['msg']})"
        raise UserError(str(path), found, "Get the model folder again (`dvc get`, `dvc pull`)") from None
