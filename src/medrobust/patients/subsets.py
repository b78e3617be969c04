"""Patients as rows of a data set: all images of a patient, stacked along the channels, are one input."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.seeds import image_seeds
from medrobust.data.store import SPLITS, SplitStore, Subset

if TYPE_CHECKING:
    import torch


#: Images of all patients of a batch, for attacks and predictions.
IMAGES_PER_PASS = 64


class PatientSubset(Subset):
    """Patients with the same number S of images each; `rows` is int n×S, in the order of the slices.

    `ids` and `patients` are the names of the patients, and `labels` their classes. A batch is n×(S·C)×H×W, so that
    an attack with one ball per image acts on all images of a patient at once.
    """

    @property
    def images_per_row(self) -> int:
        """Number of images per patient."""
        return int(self.rows.shape[1])

    @property
    def rows_per_pass(self) -> int:
        """Number of patients whose images fit into one pass of the network."""
        return max(1, IMAGES_PER_PASS // self.images_per_row)

    def fetch(
        self, rows: np.ndarray, seed: int, device: "torch.device"
    ) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
        """Images n×(S·C)×H×W, labels and seeds, on a device, of the patients at some positions."""
        seeds = image_seeds(self.ids[rows], seed).to(device)
        return self.batch(rows).to(device), self.targets(rows).to(device), seeds

    def batch(self, indices: Any) -> "torch.Tensor":
        """Float32 images in [0, 1], n×(S·C)×H×W, of the patients at the given positions."""
        rows = self.rows[np.asarray(indices)]
        flat = _plain_subset(self, rows.reshape(-1)).batch(np.arange(rows.size))
        return flat.reshape(len(rows), -1, *flat.shape[-2:])


def _plain_subset(subset: Subset, rows: np.ndarray) -> Subset:
    """A plain subset of the same store with other rows and no names; for reading pixels."""
    return Subset(
        subset.store_images, rows, np.zeros(len(rows), dtype=np.int64), rows.astype(str), rows.astype(str),
        subset.classes, subset.on_device,
    )  # fmt: skip


def no_patient_unit(splits: SplitStore, names: Sequence[str] = SPLITS) -> str | None:
    """Why a data set has no patient unit in the named splits; None if it has one."""
    manifest, table = splits.store.manifest, splits.table
    used = (table["split"].isin(names) & (manifest["kind"] == "real")).to_numpy()
    patients, labels = manifest["patient"][used], table["label"][used]
    if absent := [name for name in names if name not in set(table["split"][used])]:
        return f"{absent[0]} has no real image"
    if unknown := int((patients == "").sum()):
        return f"{unknown} of {len(patients)} images have no patient id"
    counts = patients.value_counts()
    if counts.max() == 1:
        return "no patient has more than one image"
    if mixed := int((labels.groupby(patients).nunique() > 1).sum()):
        return f"{mixed} of {len(counts)} patients have images of two labels"
    return None


def patient_groups(splits: SplitStore, name: str, *, ordered: bool = False) -> list[PatientSubset]:
    """The patients of train, val or test, grouped by their number of images (rising).

    Images are in the order of their slices, and of their ids where slices are unknown. Synthetic images are left
    out.

    Args:
        splits: a data set with a patient unit (see `no_patient_unit`).
        name: of the split.
        ordered: whether the order of the images matters.

    Raises:
        UserError: `ordered`, and of several images of a patient some have no slice number or the same one.
    """
    subset, manifest = splits.subset(name), splits.store.manifest
    table = pd.DataFrame({
        "row": subset.rows, "patient": subset.patients, "label": subset.labels, "id": subset.ids,
        "slice": manifest["slice"].to_numpy(dtype="float64", na_value=np.nan)[subset.rows],
    })[manifest["kind"].to_numpy()[subset.rows] == "real"]  # fmt: skip
    table["count"] = table.groupby("patient")["row"].transform("size")
    without_order = (table["slice"].isna() | table.duplicated(["patient", "slice"])) & (table["count"] > 1)
    if ordered and (unknown := int(without_order.sum())):
        found = (
            f"gru needs the order of the images, but {unknown} of {len(table)} have no slice number of their own"
        )
        remedy = "Use attention, or set data.table to a table with a column of slices (docs/data.md)"
        raise UserError("params.yaml: patient.aggregate", found, remedy)
    table = table.sort_values(["patient", "slice", "id"])
    return [_group(subset, part) for _, part in table.groupby("count")]


def _group(subset: Subset, table: pd.DataFrame) -> PatientSubset:
    first = table.drop_duplicates("patient")
    names = first["patient"].to_numpy().astype(str)
    rows, labels = table["row"].to_numpy().reshape(len(first), -1), first["label"].to_numpy().copy()
    return PatientSubset(subset.store_images, rows, labels, names, names, subset.classes, subset.on_device)
