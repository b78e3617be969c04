"""Bring an external data set into the form of the prepared data, and read it with the classes of a model."""

import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.params.external import ExternalSetParams
from medrobust.core.records import atomic_dir
from medrobust.data.prepare import download, prepare
from medrobust.data.store import ImageStore, SplitStore, Subset

S = TypeVar("S", bound=Subset)
#: Keys of `data`, in a message, that an external set has too; there, `labels` is called `classes`. The list in
#: `data.classes: [...]` holds the classes of the models and is not renamed.
KEY = re.compile(r"\bdata\.(source|path|sha256|labels|ignore|table|phantom|classes(?!: \[))\b")


def prepare_external(name: str, block: ExternalSetParams, data: DataParams, out: Path, seed: int) -> None:
    """Write the store of an external set, decoded and resized as the images of `data`.

    The raw data are removed at the end. The seed differs from that of the training data.

    Raises:
        UserError: as `download` and `prepare`; a label is not named in `classes`.
    """
    own = block.as_data(data)
    with keys_of_set(name), atomic_dir(out) as folder:
        raw, store = folder / "raw", folder / "prepared"
        download(own, raw, zlib.crc32(f"{seed}/{name}".encode()))
        prepare(own, raw, store)
        for path in (raw / "source.json", *store.iterdir()):
            path.rename(folder / path.name)
        shutil.rmtree(raw)
        store.rmdir()


@contextmanager
def keys_of_set(name: str) -> Iterator[None]:
    """Name the keys of an external set where an error names those of `data`."""
    try:
        yield
    except UserError as error:
        texts = (_renamed(text, name) for text in (error.where, error.found, error.remedy))
        raise UserError(*texts) from None


def _renamed(text: str, name: str) -> str:
    def own(found: re.Match[str]) -> str:
        key = "classes" if found[1] == "labels" else found[1]
        return f"external.sets.{name}.{key}"

    return KEY.sub(own, text)


def as_test_set(external: ImageStore, training: SplitStore) -> SplitStore:
    """All images of an external set as test images, with the labels that `training` has after merging classes."""
    merged = dict(zip(training.store.manifest["label"], training.table["label"], strict=True))
    manifest = external.manifest
    labels = [merged.get(label, label) for label in manifest["label"]]
    table = pd.DataFrame({"id": manifest["id"], "split": "test", "label": labels, "patient": manifest["patient"]})
    return SplitStore(external, table.assign(reason=""))


def with_classes(subset: S, classes: list[str]) -> S:
    """The same images with labels as indices into the classes of a model, of which the images may lack some.

    Raises:
        UserError: an image has a class that the model does not know.
    """
    if unknown := [name for name in subset.classes if name not in classes]:
        found = f"has images of {unknown[0]}, which the model does not know"
        raise UserError("external data", found, f"Map its labels to one of: {', '.join(classes)}, or to null")
    places = np.array([classes.index(name) for name in subset.classes], dtype=np.int64)
    return replace(subset, classes=classes, labels=places[subset.labels])
