"""Export a model folder: the file, its card, and the comparison with the original."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from medrobust.attacks.engine.suite import read_suite
from medrobust.core.errors import UserError
from medrobust.core.lineage import suite_hash
from medrobust.core.records import atomic_dir, file_hash, write_json
from medrobust.data.store import SplitStore, Subset, open_splits
from medrobust.export.onnx_file import INPUT, OPSET, OUTPUTS, PACKAGES, OnnxModel, check_packages, write_onnx
from medrobust.export.parity import TOLERANCE, Comparison, check_parity, compare
from medrobust.models.card import is_patient_model, weights_hash
from medrobust.models.folder import load
from medrobust.patients.subsets import patient_groups
from medrobust.report.templates import environment

FILE, CARD, TEXT = "model.onnx", "card.json", "README.md"


@dataclass(frozen=True)
class ExportData:
    """What an export is compared on: `images` test images (or patients), and all suites in a folder.

    `prepared` and `split` are what the stages `prepare` and `split` wrote, `suites` has one folder per resolved
    suite. `seed` is that of the attacks.
    """

    prepared: Path
    split: Path
    suites: Path
    images: int
    seed: int = 0


def export_onnx(folder: Path, out: Path, data: ExportData) -> list[Comparison]:
    """Write `model.onnx`, `card.json` and `README.md` into the folder `out`, and return what was compared.

    `folder` is that of a checkpoint, an ensemble or a patient model. An earlier export in `out` is replaced only
    if the new one is complete.

    Raises:
        UserError: an extra or a file is missing, the data have other classes than the model, `out` holds other
            files, the model cannot be expressed in ONNX, or a probability differs by more than `TOLERANCE`.
    """
    check_packages()
    _check_out(out)
    model = load(folder)
    splits, names = open_splits(data.prepared, data.split), sorted(data.suites.glob("*/suite.json"))
    if not names:
        remedy = "Run `dvc repro suite`, or name the folder of resolved suites with --suites"
        raise UserError(str(data.suites), "has no suite of attacks", remedy)
    suites = [read_suite(path.parent) for path in names]
    subsets = _subsets(folder, model, splits, data.images)
    classes: Any = model.classes
    card = _facts(folder, list(classes), subsets[0], splits)
    with atomic_dir(out) as temporary:
        write_onnx(model, _example(subsets[0]), temporary / FILE, _metadata(card))
        exported = OnnxModel(temporary / FILE)
        train = None if is_patient_model(folder) else splits.subset("train")
        found = compare(model, exported.probabilities, subsets, suites, seed=data.seed, train=train)
        check_parity(found)
        card |= {
            "suites": {suite["name"]: suite_hash(suite) for suite in suites},
            "compared": [asdict(each) for each in found],
            "file": {"name": FILE, "sha256": file_hash(temporary / FILE)},
        }
        write_json(temporary / CARD, card, digits=9)
        (temporary / TEXT).write_text(_text(card, found), encoding="utf-8")
    return found


def _check_out(out: Path) -> None:
    """Refuse to replace a folder that is no export."""
    if out.is_file():
        raise UserError(str(out), "is a file", "Name a folder; the export writes several files")
    if out.is_dir() and (others := {path.name for path in out.iterdir()} - {FILE, CARD, TEXT}):
        raise UserError(str(out), f"holds other files ({sorted(others)[0]})", "Use a new folder")


def _subsets(folder: Path, model: torch.nn.Module, splits: SplitStore, images: int) -> list[Subset]:
    """Test images, or groups of test patients, evenly spaced."""
    groups: list[Subset] = [splits.subset("test")]
    if is_patient_model(folder):
        groups = list(patient_groups(splits, "test"))
    if groups[0].classes != model.classes:
        found = f"have the classes {groups[0].classes}, the model {model.classes}"
        raise UserError("the test images", found, "Use the data that the model was trained for")
    return [group.evenly_spaced(images) for group in groups]


def _example(subset: Subset) -> torch.Tensor:
    """Two images of a subset: an example of one would fix the number of images."""
    images = subset.batch([0])
    return images.repeat(2, 1, 1, 1)


def _facts(folder: Path, classes: list[str], subset: Subset, splits: SplitStore) -> dict[str, Any]:
    """The card without the comparison."""
    patient, colours = is_patient_model(folder), splits.store.header.channels
    channels = f"({colours} per image, all images of a patient)" if patient else colours
    return {
        "source": f"{folder.absolute().parent.name}/{folder.absolute().name}",
        "weights": weights_hash(folder),
        "classes": classes,
        "unit": "patient" if patient else "image",
        "input": {
            "name": INPUT, "type": "float32", "range": [0, 1],
            "shape": ["patients" if patient else "images", channels, "height", "width"],
            "compared": ["n", *subset.batch([0]).shape[1:]],
        },
        "outputs": {name: ["patients" if patient else "images", len(classes)] for name in OUTPUTS},
        "opset": OPSET,
        "versions": {name: version(name) for name in ("medrobust", "torch", *PACKAGES)},
        "tolerance": TOLERANCE,
        **splits.hashes,
    }  # fmt: skip


def _metadata(card: dict[str, Any]) -> dict[str, str]:
    """What the ONNX file says of itself."""
    return {
        "classes": ",".join(card["classes"]), "weights": card["weights"],
        "input": "pixels from 0 (black) to 1 (white)",
        "use": "for research only: no diagnosis",
    }  # fmt: skip


def _text(card: dict[str, Any], found: list[Comparison]) -> str:
    return environment("medrobust.export").get_template("card.md.jinja").render(card=card, compared=found)
