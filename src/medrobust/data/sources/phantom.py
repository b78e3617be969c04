"""The built-in data set: synthetic axial brain slices in grades of atrophy.

The MNI152 T1 template (docs/data.md) is varied per patient: by a smooth random deformation, scale, rotation,
contrast, a bias field and Rician noise. The grade widens the ventricles and darkens the sulci. The amounts overlap
between neighbouring grades. Slices of one patient share their anatomy, so a split by slice leaks.

`ripple` adds a confounder: a faint scanner ripple that depends on the grade and is not larger than the noise. It
is a useful, non-robust feature (Ilyas et al. 2019, "Adversarial examples are not bugs, they are features",
section 2).

Each patient has a sex, an age and a site. They are drawn apart from the images and do not depend on the grade.
`shift` is the known difference of site B: its signal is weaker by this share. It changes no image of site A. With
`site`, all patients are of that one site, and `shift` weakens their signal as it does that of site B.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams, PhantomParams
from medrobust.core.records import read_table, write_table
from medrobust.core.runtime import progress
from medrobust.data.groups import Kind
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.labels import LabelMap, drop_left_out

#: Mean widening of the ventricles in mm and of the sulci (share of CSF) at the highest grade; 0 at the lowest.
WIDENING, SULCI = 7.0, 1.0
#: Standard deviation of severity within a grade at difficulty 1, as a share of the step between grades.
OVERLAP = 0.3
#: Periods of the scanner ripple over the image height. Its stripes are horizontal, so mirroring keeps them.
RIPPLES = 4
#: Groups of the patients, with the ranges of their ages.
GROUPS: dict[str, Kind] = {"sex": "categories", "age": [50, 65, 75, 95], "site": "categories"}
#: Axial range around the centre of the ventricles in mm.
AXIAL = (-8.0, 12.0)


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Generate the images as PNG files, and a manifest.

    Raises:
        UserError: `data.phantom` is missing, or its classes are not `data.classes`.
    """
    from PIL import Image

    phantom = data.phantom
    if phantom is None:
        raise UserError("params.yaml: data.phantom", "missing", "Add this block: the source phantom needs it")
    if list(phantom.patients) != data.classes:
        found = f"has the classes {list(phantom.patients)}"
        raise UserError("params.yaml: data.phantom.patients", found, f"Use data.classes: {data.classes}")
    anatomy = _anatomy()
    rows = []
    plan = [(grade, n) for grade, label in enumerate(data.classes) for n in range(phantom.patients[label])]
    for grade, number in progress(plan, "phantom", unit="patients"):
        label = data.classes[grade]
        rng = np.random.default_rng([seed, grade, number])
        patient = f"{phantom.site or ''}{label[:3].upper()}{number + 1:03d}"
        person = _person(np.random.default_rng([seed, grade, number, 1]))
        if phantom.site:
            person["site"] = phantom.site
        gain = 1 - phantom.shift * (person["site"] in ("B", phantom.site))
        severity = grade / (len(data.classes) - 1)
        for index, pixels in enumerate(anatomy.patient(severity, phantom, data, rng, gain)):
            path = f"{label}/{patient}_{index + 1:02d}.png"
            (folder / label).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / path)
            rows.append({"id": path, "label": label, "patient": patient, "slice": index + 1, **person})
    table = pd.DataFrame(rows)
    write_table(folder / "manifest.csv", table)
    return {"file": "generated"}


def listing(data: DataParams, folder: Path) -> Listing:
    """List the generated images with their true patients and slices."""
    # Class names may be numbers.
    table = read_table(
        folder / "manifest.csv", dtype=dict.fromkeys(("label", *GROUPS), str), keep_default_na=False
    )
    raw = table["label"].set_axis(table["id"])
    label = LabelMap(data).column(raw, "manifest.csv").to_numpy()
    table = table.assign(label=label, published_split="", kind="real", parent="")
    table, left_out = drop_left_out(table, raw.reset_index(drop=True))
    release = Release(
        "generated; the MNI152 template is under the ICBM's permissive licence",
        "Fonov et al. 2011, NeuroImage 54(1) (the MNI152 template, as shipped by nilearn)",
        "https://nilearn.github.io",
    )
    return Listing(table, lambda path: (folder / path).read_bytes(), release, left_out=left_out, groups=GROUPS)


def _person(rng: np.random.Generator) -> dict[str, Any]:
    """The groups of a patient: `sex`, `age` in years, and `site` (a third of the patients are of site B)."""
    sex, age, site = rng.random(3)
    return {"sex": "F" if sex < 0.5 else "M", "age": int(55 + 35 * age), "site": "B" if site < 1 / 3 else "A"}


class Anatomy:
    """Maps of the template, and quantities derived from them for the deformation, on a 2 mm grid.

    Attributes:
        t1: intensity, at most 1.
        csf: share of cerebrospinal fluid per voxel inside the brain, blurred.
        distance: distance to the surface of the ventricles in mm, negative inside.
        gradient: 3×…, unit direction of increasing distance.
        centre: centre of the ventricles in voxels.
    """

    def __init__(self) -> None:
        from nilearn import datasets
        from scipy import ndimage

        t1 = datasets.load_mni152_template(resolution=2).get_fdata()
        t1 = t1 / t1.max()
        grey = datasets.load_mni152_gm_template(resolution=2).get_fdata()
        tissue = grey + datasets.load_mni152_wm_template(resolution=2).get_fdata()
        mask = ndimage.binary_fill_holes(ndimage.binary_closing(tissue > 0.3, iterations=3))
        depth = ndimage.distance_transform_edt(mask) * 2.0
        # The lateral ventricles are the large, deep, dark components; the cistern between them is brighter.
        parts, count = ndimage.label(mask & (tissue < 0.4) & (depth > 20))
        components = [parts == number for number in range(1, count + 1)]
        dark = [part for part in components if part.sum() > 500 and t1[part].mean() < 0.34]
        ventricles = np.any(dark, axis=0)
        outside = ndimage.distance_transform_edt(~ventricles)
        inside = ndimage.distance_transform_edt(ventricles)
        self.distance = ndimage.gaussian_filter((outside - inside) * 2.0, 1.5)
        gradient = np.stack(np.gradient(self.distance))
        self.gradient = gradient / np.maximum(np.linalg.norm(gradient, axis=0), 1e-6)
        self.t1 = t1 * ndimage.gaussian_filter(mask.astype(float), 0.5)
        self.csf = ndimage.gaussian_filter(np.where(mask, np.clip(1 - tissue, 0, 1), 0), 0.7) * (depth < 20)
        self.centre = np.array(ndimage.center_of_mass(ventricles))

    def patient(
        self, severity: float, phantom: PhantomParams, data: DataParams, rng: np.random.Generator, gain: float
    ) -> list[np.ndarray]:
        """Generate a patient's slices, uint8 H×W (×3 for colour), bottom to top.

        Severity 1 is the highest grade. `gain` is that of the site's scanner, 1 at site A.
        """
        step = 1 / max(len(phantom.patients) - 1, 1)
        true_severity = severity + rng.normal(0, OVERLAP * phantom.difficulty * step)
        traits = _PatientTraits(true_severity, rng, gain)
        rows = (np.arange(data.image_size)[:, None] + 0.5) / data.image_size
        ripple = phantom.ripple * (2 * true_severity - 1) * np.cos(2 * np.pi * RIPPLES * rows)
        heights = np.linspace(*AXIAL, phantom.slices) / 2.0 + self.centre[2]
        slices = []
        for height in heights:
            pixels = traits.finish(self._slice(height, data.image_size, traits), rng) + ripple
            levels = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
            slices.append(np.repeat(levels[..., None], 3, axis=2) if data.channels == 3 else levels)
        return slices

    def _slice(self, height: float, size: int, traits: "_PatientTraits") -> np.ndarray:
        """Intensity in [0, 1] of the deformed anatomy at one height, anterior up, size×size."""
        from scipy import ndimage

        span = 184.0 / 2  # field of view in voxels; the brain is at most 190 mm long
        axis = (np.arange(size) + 0.5) / size - 0.5
        row, column = np.meshgrid(-axis * span, axis * span, indexing="ij")
        cos, sin = np.cos(traits.rotation), np.sin(traits.rotation)
        x = self.centre[0] + (cos * column - sin * row) * traits.scale[0]
        y = (self.t1.shape[1] - 1) / 2 + (sin * column + cos * row) * traits.scale[1]
        points = np.stack([x, y, np.full_like(x, height)])
        # The random field is stored on a coarse grid; cubic interpolation at the points makes it smooth.
        ends = np.array([[[extent - 1]] for extent in self.t1.shape])
        coarse = points / ends * (np.array(traits.field.shape[1:])[:, None, None] - 1)
        displacement = [ndimage.map_coordinates(part, coarse, order=3, mode="nearest") for part in traits.field]
        points += np.stack(displacement) / 2.0
        # To widen the ventricles, sampling points are moved towards them, less with growing distance. They stop
        # 2 mm inside the wall, where the fluid is dark, so no point crosses to the other side.
        distance = ndimage.map_coordinates(self.distance, points, order=1)
        shift = traits.widening * np.exp(-np.maximum(distance, 0) / 12.0)
        shift = np.minimum(shift, np.maximum(distance + 2.0, 0))
        direction = np.stack([ndimage.map_coordinates(part, points, order=1) for part in self.gradient])
        points -= shift * direction / 2.0
        t1 = ndimage.map_coordinates(self.t1, points, order=1)
        csf = ndimage.map_coordinates(self.csf, points, order=1)
        return t1 * (1 - np.clip(traits.sulci * csf * 1.6, 0, 0.9))


@cache
def _anatomy() -> Anatomy:
    return Anatomy()


class _PatientTraits:
    """Parameters that all slices of one patient share."""

    def __init__(self, severity: float, rng: np.random.Generator, gain: float) -> None:
        """Draw a patient of the given severity (0 to 1, slightly beyond because grades overlap)."""
        self.field = rng.normal(0, 3.0, (3, 6, 7, 6))
        self.widening, self.sulci = max(severity, -0.1) * WIDENING, max(severity * SULCI, 0.0)
        self.scale = 1 + rng.normal(0, 0.03, 2)
        self.rotation = rng.normal(0, 0.04)
        self.gain, self.exponent = gain * (1 + rng.normal(0, 0.05)), 1.3 + rng.normal(0, 0.05)
        self.bias = rng.normal(0, 0.05, 2)

    def finish(self, t1: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply contrast, bias field and Rician noise of the scanner."""
        axis = np.linspace(-1, 1, len(t1))
        bias = 1 + self.bias[0] * axis[:, None] + self.bias[1] * axis[None, :]
        signal = 0.85 * self.gain * np.clip(t1, 0, None) ** self.exponent * bias
        noise = rng.normal(0, 0.02, (2, *t1.shape))
        return np.hypot(signal + noise[0], noise[1])
