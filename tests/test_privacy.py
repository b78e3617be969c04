"""What git tracks of a run on patients with telltale ids, file names and pixels holds none of them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clones import clone, run
from tests.params import preset, save

pytestmark = pytest.mark.slow
CLASSES = ["Non", "Mild"]
#: In every id, in every name of a file or folder, and in the columns of the table.
PATIENT, FILE = "XQPATIENT", "XQFILE"
#: A colour that no figure draws, and that covers half of each image.
TELLTALE = (255, 0, 255)


def write_images(folder: Path) -> None:
    """Two images of 24 patients, with a copy in another patient's folder, a damaged file and a mixed patient."""
    rng, rows = np.random.default_rng(0), []
    for number in range(24):
        label, patient = CLASSES[number % 2], f"{PATIENT}-{number:02}"
        for slice_ in (1, 2):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            pixels[:, :20] = TELLTALE
            name = f"{PATIENT}_{number:02}/{FILE}_{number:02}_{slice_}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name)
            rows.append((name, label, patient, slice_))
    (folder / rows[0][0]).write_bytes((folder / rows[8][0]).read_bytes())
    (folder / rows[3][0]).write_bytes(b"no image")
    rows[7] = (rows[7][0], "Non", *rows[7][2:])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "patient", "slice"), *rows])


def params(folder: Path) -> dict[str, object]:
    """The smoke preset on these images, with one suite."""
    content = preset("smoke")
    del content["attacks"]["suites"]["worst"]
    content["detect"] |= {"suites": {"pgd": 0.01}, "seen": None, "detectors": {"gmm": {}}}
    content["data"] |= {
        "source": "archive", "path": str(folder), "classes": CLASSES, "channels": 3, "phantom": None,
        "on_bad_image": "skip", "on_mixed_patient": "skip", "image_size": 32, "table": {"file": "labels.csv"},
    }  # fmt: skip
    content["external"]["sets"] = {}
    content["corruptions"] |= {"modality": "photo", "names": ["jpeg"]}
    content["split"] |= {"strategy": "patient", "merge": {}}
    return content


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the smoke preset has run on the images."""
    base = tmp_path_factory.mktemp("privacy")
    write_images(base / "images")
    clone(base / "medrobust", save(base, params(base / "images")).read_text())
    run(base / "medrobust", "dvc", "repro", "--quiet")
    run(base / "medrobust", "git", "add", "--all")
    return base / "medrobust"


def tracked(folder: Path) -> list[Path]:
    """The files that git tracks and that the run has written or could have changed."""
    names = run(folder, "git", "ls-files", "-z", "--", "metrics", "plots", "dvc.lock", ".dvc").split("\0")
    return [folder / name for name in names if name]


def has_telltale(path: Path) -> bool:
    """Whether a picture shows a part of an image."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return bool((np.abs(pixels - TELLTALE).max(-1) < 40).any())


def test_no_tracked_file_holds_an_id_or_the_name_of_a_file(done: Path) -> None:
    files = tracked(done)
    assert len(files) > 30
    for path in files:
        for word in (PATIENT, FILE):
            assert word not in path.name
            assert word.encode() not in path.read_bytes(), path


def test_no_tracked_picture_is_made_of_images_and_dvc_keeps_those_that_are(done: Path) -> None:
    pictures = [path for path in tracked(done) if path.suffix == ".png"]
    assert pictures
    assert not [path for path in pictures if has_telltale(path)]
    assert not [path for path in tracked(done) if path.suffix in {".jpg", ".svg", ".npy", ".html"}]
    kept = [done / "data" / "audit" / "pairs.png", done / "report" / "pictures" / "classes.png"]
    kept += [*(done / "plots" / "explain").rglob("right-1.png")]
    assert len(kept) > 2
    for path in kept:
        assert has_telltale(path), path
    for path in (done / "report" / "cases.html", done / "data" / "cases.json"):
        assert "data:image/png" in path.read_text()
        run(done, "git", "check-ignore", str(path))
    for path in kept:
        run(done, "git", "check-ignore", str(path))


def test_what_is_handed_on_names_no_patient_either(done: Path) -> None:
    """The page and the Markdown that is posted with a pull request, and the model cards."""
    for path in (
        done / "data" / "cases.json",
        *done.glob("report/*.*"),
        *done.glob("report/tables/*"),
        *done.glob("models/*/*/README.md"),
    ):
        for word in (PATIENT, FILE):
            assert word.encode() not in path.read_bytes(), path
    results = (done / "report" / "results.md").read_text()
    assert "3 images were skipped" in results
    assert "all belong to one run" in results


def test_one_switch_leaves_out_every_picture_of_images(done: Path) -> None:
    content = params(done.parent / "images")
    content["report"] = {**preset("smoke")["report"], "pictures": False}
    save(done, content)
    run(done, "dvc", "repro", "--quiet")
    shown = [path for part in ("data", "plots", "report") for path in (done / part).rglob("*.png")]
    shown = [path for path in shown if "raw" not in path.parts]
    assert shown
    assert not [path for path in shown if has_telltale(path)]
    assert "data:image/png" in (done / "report" / "index.html").read_text(), "figures of features stay"
    assert not (done / "report" / "cases.html").exists()
    assert "data:image/png" not in (done / "data" / "cases.json").read_text()
