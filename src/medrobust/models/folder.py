"""Model folders: a checkpoint, an ensemble of checkpoints or a patient model, as `card.json` tells."""

from pathlib import Path

import torch
from torch import nn

from medrobust.models import checkpoint, ensemble, patient
from medrobust.models.card import is_ensemble, is_patient_model
from medrobust.models.classifier import Classifier


def load(folder: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """The model of a folder, in eval mode on `device`: images n×C×H×W in [0, 1] to logits n×K.

    A patient model takes all images of a patient at once (see `patient.PatientModel`).

    Raises:
        UserError: as documented for `checkpoint.load`, `ensemble.load_ensemble` and `patient.load_patient_model`.
    """
    folder = Path(folder)
    model: Classifier | ensemble.EnsembleClassifier | patient.PatientModel
    if is_patient_model(folder):
        model = patient.load_patient_model(folder, device)
    elif is_ensemble(folder):
        model = ensemble.load_ensemble(folder, device)
    else:
        model = checkpoint.load(folder, device)
    model.folder = folder
    return model


def members(folder: Path, device: torch.device | str = "cpu") -> dict[str, nn.Module]:
    """All members of an ensemble by name, including those of weight 0; {} for a checkpoint."""
    return ensemble.load_members(folder, device) if is_ensemble(folder) else {}
