"""A model ready for use: network, input, guard and model of patients, from one folder or from a loaded module."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from medrobust.core.errors import UserError
from medrobust.data.inputs import Reader
from medrobust.detection.guard import FittedDetector, Guard, load_guard
from medrobust.models import folder as model_folder
from medrobust.models.card import is_patient_model, weights_hash
from medrobust.models.patient import PatientModel
from medrobust.models.use import GUARD, PATIENT, Use, read_use

#: What a user may give as the guard: a loaded one, a folder, None for the model's own, False for none.
GuardChoice = Guard | Path | str | Literal[False] | None
AGAIN = "Use the guard of this model, which its folder holds"


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything that its use needs.

    Attributes:
        network: images n×C×H×W in [0, 1] to logits n×K, in eval mode.
        folder: where it was loaded from; None for a module of other origin.
        sha256: hash of the weights; "" if unknown.
        use: how files become its input; None for a model that was not published.
        guard, detector: its guard, and the name of the detector that rejects; None and "" without a guard.
        patient: the model of patients that was fitted on this network; None if there is none.
    """

    network: nn.Module
    folder: Path | None = None
    sha256: str = ""
    use: Use | None = None
    guard: Guard | None = None
    detector: str = ""
    patient: PatientModel | None = None

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the order of the logits."""
        classes: Any = self.network.classes
        return list(classes)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def fitted(self) -> FittedDetector | None:
        """The detector that rejects."""
        return self.guard.detectors[self.detector] if self.guard else None

    @property
    def temperature(self) -> float | None:
        """Divides the logits of images; None if it was not fitted."""
        return self.guard.temperature if self.guard else self.use.temperature if self.use else None

    def described(self) -> Use:
        """How files become the input of this model.

        Raises:
            UserError: the model was not published.
        """
        if self.use is None:
            found = "does not say how files become its input: it has no use.json"
            remedy = "Use a published folder (models/B/R), which `dvc repro publish` writes, or tensors in [0, 1]"
            raise UserError(str(self.folder or "model"), found, remedy)
        return self.use

    def reader(self, *, colour_as_grey: bool = False) -> Reader:
        """Reads files as `prepare` did for the training data; raises as `described`."""
        use = self.described()
        return Reader(use.input, use.slices, colour_as_grey)


def open_model(
    model: nn.Module | Path | str,
    guard: GuardChoice = None,
    detector: str | None = None,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Load what the use of a model needs.

    Args:
        model: a model folder, or a module; a module that `medrobust.load` returned knows its folder.
        guard: None for the guard in the model's folder, if there is one; False for none.
        detector: name of the guard's detector that rejects; None = the first in params.yaml.
        device: for a model folder; a module stays where it is.

    Raises:
        UserError: a folder is missing or damaged, the guard belongs to another model, or it has no such detector.
    """
    folder = Path(model) if isinstance(model, Path | str) else getattr(model, "folder", None)
    if isinstance(model, nn.Module):
        network = model
    else:
        folder = _existing(Path(model))
        network = model_folder.load(folder, device)
    sha256 = weights_hash(folder) if folder is not None else ""
    patient = None
    if isinstance(network, PatientModel):
        patient, network = network, network.network
    elif folder is not None and (folder / PATIENT).is_dir():
        patient = _patient_model(folder / PATIENT, network)
    chosen = _guard(guard, folder, sha256)
    names = list(chosen.detectors) if chosen else []
    if chosen and detector is not None and detector not in names:
        raise UserError("detector", f"the guard has no {detector!r}", f"It has: {', '.join(names)}")
    if chosen is None and detector is not None:
        raise UserError("detector", f"{detector!r}, but the model has no guard", "Leave the detector out")
    if chosen:
        chosen.to(next(network.parameters()).device)
    use = read_use(folder) if folder is not None else None
    name = (detector or names[0]) if chosen else ""
    return LoadedModel(network, folder, sha256, use, chosen, name, patient)


def _existing(folder: Path) -> Path:
    """The folder of a model; for that of a model of patients inside another, the other.

    Raises:
        UserError: it has no card.
    """
    if not (folder / "card.json").is_file():
        found = "has no card.json" if folder.is_dir() else "no such folder"
        raise UserError(str(folder), f"is not a model folder: {found}", "Use a folder such as models/B/R")
    inside = is_patient_model(folder) and (folder.parent / "card.json").is_file()
    return folder.parent if inside else folder


def _patient_model(folder: Path, network: nn.Module) -> PatientModel:
    loaded = model_folder.load(folder, next(network.parameters()).device)
    assert isinstance(loaded, PatientModel)
    return loaded


def _guard(guard: GuardChoice, folder: Path | None, sha256: str) -> Guard | None:
    if guard is False:
        return None
    if guard is None:
        if folder is None or not (folder / GUARD).is_dir():
            return None
        guard = folder / GUARD
    if isinstance(guard, Path | str):
        path, guard = Path(guard), load_guard(guard)
        if sha256 and guard.model != sha256:
            raise UserError(str(path), "is the guard of another model: it was fitted to other weights", AGAIN)
    return guard
