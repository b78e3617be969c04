"""Kermany's retinal OCT images: class folders as in `archive`, and the patient in each file's name."""

import re
from pathlib import Path, PurePosixPath

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.data.sources.archive import class_folders
from medrobust.data.sources.base import Listing
from medrobust.data.sources.fetch import bring
from medrobust.data.sources.files import open_files
from medrobust.data.sources.labels import plain

#: `CNV-1016042-1.jpeg`: class, patient, number of the image.
NAME = re.compile(r"([A-Za-z]+)-(\d+)-(\d+)\.jpe?g")
#: Images by class, all folders together, of the releases.
RELEASES = {
    "84,484 images (Mendeley version 2, Kaggle)": {"CNV": 37455, "DME": 11598, "DRUSEN": 8866, "NORMAL": 26565},
    "109,309 images (Mendeley version 3)": {"CNV": 37455, "DME": 11598, "DRUSEN": 8866, "NORMAL": 51390},
}


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy or fetch the archive or folder at `data.path`, unchanged, and record its hash."""
    return bring(data, folder)


def listing(data: DataParams, folder: Path) -> Listing:
    """The images in class folders, with the patient of each.

    Raises:
        UserError: a file is not named as published, or lies in another class's folder.
    """
    files = open_files(folder / read_json(folder / "source.json")["file"])
    table, left_out = class_folders(data, files)
    patients, counts = [], dict[str, int]()
    for name in table["id"]:
        place = PurePosixPath(name)
        match = NAME.fullmatch(place.name)
        if match is None:
            remedy = "Names are like CNV-1016042-1.jpeg; take data.source: archive for others"
            raise UserError(name, "has no patient in its name", remedy)
        if plain(match[1]) != plain(place.parent.name):
            raise UserError(
                name, f"{match[1]} by its name, {place.parent.name} by its folder", "Move or remove it"
            )
        patients.append(match[2])
        counts[match[1]] = counts.get(match[1], 0) + 1
    whole = next((name for name, expected in RELEASES.items() if expected == counts), None)
    return Listing(
        table.assign(patient=patients),
        files.read,
        licence="CC BY 4.0",
        citation="Kermany et al. 2018, Cell 172(5), doi 10.1016/j.cell.2018.02.010",
        url="https://data.mendeley.com/datasets/rscbjbr9sj",
        verified=f"class counts of the release of {whole}" if whole else "file names; not a whole release",
        left_out=left_out,
    )
