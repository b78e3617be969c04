"""Patients of a small data set with a known split, and the classifier of their images."""

from dataclasses import replace

import numpy as np
import pandas as pd

from medrobust.data.split import make_split
from medrobust.data.store import ImageStore, SplitStore
from medrobust.models.classifier import Classifier
from medrobust.patients.subsets import PatientSubset, patient_groups
from tests.data.stores import split_params, store
from tests.small import Backbone, make_classifier


def splits(slices: int = 4, patients: int = 8) -> SplitStore:
    """Patients of three classes, each with the same number of slices."""
    data = store([patients] * 3, slices=slices)
    return SplitStore(data, make_split(data.manifest, data.header, split_params(), 0))


def without(data: SplitStore, ids: list[str]) -> SplitStore:
    """The same data with some images left out of every split."""
    return SplitStore(
        data.store, data.table.assign(split=data.table["split"].mask(data.table["id"].isin(ids), "excluded"))
    )


def with_manifest(data: SplitStore, **columns: pd.Series | str) -> SplitStore:
    """The same data with other columns in the manifest."""
    changed: ImageStore = replace(data.store, manifest=data.store.manifest.assign(**columns))
    return SplitStore(changed, data.table)


def classifier(classes: int = 3) -> Classifier:
    """An untrained network of the images; with fewer classes, its first logits."""
    network = make_classifier()
    if classes < 3:
        backbone = network.backbone
        assert isinstance(backbone, Backbone)
        backbone.fc.weight.data, backbone.fc.bias.data = (
            backbone.fc.weight.data[:classes],
            backbone.fc.bias.data[:classes],
        )
        network.classes = network.classes[:classes]
    return network.eval()


def one_group(data: SplitStore, name: str = "test") -> PatientSubset:
    """The only group of a split in which all patients have the same number of images."""
    (group,) = patient_groups(data, name)
    return group


def binary(group: PatientSubset) -> PatientSubset:
    """The patients of the first two classes."""
    part = group.take(np.flatnonzero(group.labels < 2))
    return replace(part, classes=part.classes[:2])
