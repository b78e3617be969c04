"""Uploaded files: read once for every model, then deleted; their pixels stay in memory for a while."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medrobust.data.inputs import Fault, InputImage, is_table
from medrobust.inference.loaded import LoadedModel
from medrobust.inference.predict import Prediction, answer


@dataclass(frozen=True)
class ReadFiles:
    """What the files of one upload are for a model: images, and files that it cannot take."""

    images: list[InputImage]
    faults: list[Fault]


@dataclass
class Upload:
    """The files of one upload as each model gets them, by the model's name.

    `patients` has the answers for patients, volumes and series of the models that were asked already.
    """

    files: dict[str, ReadFiles]
    patients: dict[str, list[Prediction]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of images; the largest over the models."""
        return max(len(read.images) for read in self.files.values())

    def answers_for_patients(self, name: str, model: LoadedModel) -> list[Prediction]:
        """One answer per patient, volume or series of more than one image."""
        if name not in self.patients:
            images = self.files[name].images
            several = len(images) > 1
            found = answer(model, images) if several else []
            self.patients[name] = [one for one in found if isinstance(one, Prediction) and one.unit == "patient"]
        return self.patients[name]


def read_upload(paths: Sequence[Path], models: Mapping[str, LoadedModel]) -> Upload:
    """Read uploaded files as `medrobust predict` does, once for models with the same input, and delete them.

    Raises:
        UserError: the library for a kind of file is not installed.
    """
    folder = _in_one_folder(paths)
    try:
        files = sorted(folder.iterdir())
        known: dict[str, ReadFiles] = {}
        found = {}
        for name, model in models.items():
            key = repr((model.described().input, model.described().slices))
            if key not in known:
                known[key] = _read(files, model)
            found[name] = known[key]
        return Upload(found)
    finally:
        shutil.rmtree(folder)


def _in_one_folder(paths: Sequence[Path]) -> Path:
    """Move the files into the folder of the first one: the images of a series belong together.

    Gradio puts each file into a folder of its own.
    """
    folder = paths[0].parent
    for number, path in enumerate(paths):
        target = folder / path.name
        if path == target:
            continue
        if target.exists():
            target = folder / f"{number}-{path.name}"
        path.rename(target)
        shutil.rmtree(path.parent)
    return folder


def _read(files: Sequence[Path], model: LoadedModel) -> ReadFiles:
    """Tables are refused: a page that others on this machine can open must not read the paths that they name."""
    tables = [path for path in files if is_table(path)]
    parts: list[InputImage | Fault] = [
        Fault(str(path), "is a table; use it with `medrobust predict`") for path in tables
    ]
    parts += model.reader().find([path for path in files if path not in tables]).read()
    images = [replace(one, file=Path(one.file).name) for one in parts if isinstance(one, InputImage)]
    faults = [replace(one, file=Path(one.file).name) for one in parts if isinstance(one, Fault)]
    return ReadFiles(images, faults)
