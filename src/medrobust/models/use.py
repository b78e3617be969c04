"""What the use of a published model needs beside its weights: `use.json` in its folder."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medrobust.core.errors import UserError
from medrobust.core.params.base import Block, Count, Positive, Share
from medrobust.core.params.data import InputParams
from medrobust.core.records import read_json

USE, SUITES = "use.json", "suites.json"
#: Folders in that of a model: its guard, and the model of patients that reads its outputs.
GUARD, PATIENT = "guard", "patient"


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

    input: InputParams
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
        UserError: the file is damaged.
    """
    path = folder / USE
    if not path.is_file():
        return None
    content: Any = read_json(path)
    try:
        return Use.model_validate(content)
    except ValidationError as error:
        found = f"is damaged ({error.errors()[0]['loc']}: {error.errors()[0]['msg']})"
        raise UserError(str(path), found, "Get the model folder again (`dvc get`, `dvc pull`)") from None
