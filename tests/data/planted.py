"""Faults of real data sets, added to the phantom on purpose, so that the rules and the audit can be tested.

They are synthetic children, exact copies, copies that were only darkened, and patients under two ids.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

#: Levels by which the scanner's noise differs between two scans of one person (standard deviation).
RESCAN_NOISE = 4.0
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Plan:
    """How many faults of which kind.

    Attributes:
        synthetic: rotated, mirrored or deformed children, as a share of the real images.
        exact_copies: images that are filed again under another patient, with the same bytes.
        near_copies: the same, darkened by 7 %.
        second_ids: patients who appear again under another id, scanned again.
    """

    synthetic: float = 0.0
    exact_copies: int = 0
    near_copies: int = 0
    second_ids: int = 0


def plant(folder: Path, table: pd.DataFrame, plan: Plan, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write the faults of `plan` beside the images in `folder`. No image is used for two of them.

    Args:
        folder: holds the files that `table` lists.
        table: `id`, `label`, `patient`, `slice`.
        plan: the faults.
        seed: of the phantom.

    Returns:
        The manifest with the added images, and the truth that an audit must find: `id`, `of`, `kind`.

    Raises:
        ValueError: there are too few patients or images for the plan.
    """
    rng = np.random.default_rng([seed, 0x706C616E74])
    people = table["patient"].unique()[rng.permutation(table["patient"].nunique())]
    copies = plan.exact_copies + plan.near_copies
    if len(people) < plan.second_ids + 2 * copies:
        need = plan.second_ids + 2 * copies
        raise ValueError(f"{plan.second_ids} second ids and {copies} copies need {need} patients")
    rows = [_second_id(folder, table, name, number, rng) for number, name in enumerate(people[: plan.second_ids])]
    for number in range(copies):
        source, receiver = people[plan.second_ids + 2 * number :][:2]
        change = _unchanged if number < plan.exact_copies else _brightened
        rows.append(_copy(folder, table, source, receiver, change, rng))
    rows.append(_children(folder, table, round(plan.synthetic * len(table)), rng))
    planted = pd.concat(rows, ignore_index=True)
    truth = planted[["id", "of", "plant"]].rename(columns={"plant": "kind"})
    everything = pd.concat([table.assign(kind="real", parent=""), planted.drop(columns=["of", "plant"])])
    return everything.reset_index(drop=True), truth


def _second_id(
    folder: Path, table: pd.DataFrame, patient: str, number: int, rng: np.random.Generator
) -> pd.DataFrame:
    """All slices of a patient once more, scanned again, under an id of their own."""
    own = table[table["patient"] == patient]
    name = f"AGAIN{number + 1:03d}"
    new = own.assign(
        id=[f"{label}/{name}_{place:02d}.png" for label, place in zip(own["label"], own["slice"], strict=True)],
        patient=name, kind="real", parent="", of=own["id"], plant="second id",
    )  # fmt: skip
    for source, target in zip(own["id"], new["id"], strict=True):
        _derive(folder, source, target, _rescanned, rng)
    return new


def _copy(
    folder: Path, table: pd.DataFrame, source: str, receiver: str, change: Change, rng: np.random.Generator
) -> pd.DataFrame:
    """One image of a patient filed once more under another patient and that patient's class."""
    own, other = table[table["patient"] == source], table[table["patient"] == receiver].iloc[[-1]]
    image = own.iloc[int(rng.integers(len(own)))]
    place = int(other["slice"].iloc[0]) + 1
    name = f"{other['label'].iloc[0]}/{receiver}_{place:02d}.png"
    _derive(folder, image["id"], name, change, rng)
    plant_name = "exact copy" if change is _unchanged else "near copy"
    return other.assign(id=name, slice=place, kind="real", parent="", of=image["id"], plant=plant_name)


def _children(folder: Path, table: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rotated, mirrored and deformed pictures of real images, which know their parent and no patient."""
    order = np.concatenate([rng.permutation(len(table)) for _ in range(count // len(table) + 1)])[:count]
    new = table.iloc[order].assign(patient="", kind="synthetic", plant="synthetic child")
    new = new.assign(parent=new["id"], of=new["id"])
    new["id"] = [f"{name.removesuffix('.png')}_child{number + 1}.png" for number, name in enumerate(new["id"])]
    for number, (source, target) in enumerate(zip(new["parent"], new["id"], strict=True)):
        _derive(folder, source, target, (_rotated, _mirrored, _deformed)[number % 3], rng)
    return new


def _derive(folder: Path, source: str, target: str, change: Change, rng: np.random.Generator) -> None:
    """Write the changed picture of one file as another."""
    from PIL import Image

    if change is _unchanged:
        (folder / target).write_bytes((folder / source).read_bytes())
        return
    with Image.open(folder / source) as image:
        pixels = change(np.asarray(image).astype(float), rng)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).save(buffer, "PNG")
    (folder / target).write_bytes(buffer.getvalue())


def _unchanged(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels


def _brightened(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels * 0.93


def _rescanned(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels * rng.normal(1, 0.03) + rng.normal(0, RESCAN_NOISE, pixels.shape)


def _mirrored(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels[:, ::-1]


def _rotated(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    angle = rng.uniform(5, 15) * rng.choice([-1, 1])
    rotated: np.ndarray = ndimage.rotate(pixels, angle, reshape=False, order=1)
    return rotated


def _deformed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field of a few percent of the side."""
    from scipy import ndimage

    size = len(pixels)
    field = [ndimage.zoom(rng.normal(0, 0.03 * size, (4, 4)), size / 4, order=3) for _ in range(2)]
    points = np.indices((size, size)) + np.stack(field)
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    moved = [ndimage.map_coordinates(planes[..., k], points, order=1) for k in range(planes.shape[-1])]
    return np.stack(moved, axis=-1).reshape(pixels.shape)
