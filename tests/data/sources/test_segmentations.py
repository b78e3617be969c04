"""Masks beside pictures, named as in public data sets, stop the run; other names do not."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.data.prepare import download, prepare
from medrobust.data.sources.labels import LabelMap
from medrobust.data.sources.segmentations import check_no_masks
from medrobust.data.store import ImageStore
from tests.data.sources.samples import encoded


@pytest.mark.parametrize(
    ("names", "mask", "pattern"),
    [
        (["b/benign (1).png", "b/benign (1)_mask.png"], "b/benign (1)_mask.png", "*_mask*"),
        (["b/benign (4).png", "b/benign (4)_mask_1.png"], "b/benign (4)_mask_1.png", "*_mask*"),
        (["ISIC_01.jpg", "ISIC_01_segmentation.png"], "ISIC_01_segmentation.png", "*_segmentation*"),
        (["ISIC_01.jpg", "ISIC_01_superpixels.png"], "ISIC_01_superpixels.png", "*_superpixels*"),
        (["21_training.tif", "21_training_mask.gif"], "21_training_mask.gif", "*_mask*"),
        (["x.png", "x_lesion_mask.png"], "x_lesion_mask.png", "*_mask*"),
        (["x/1.png", "x/mask_1.png"], "x/mask_1.png", "*/mask_*"),
        (["x/1.png", "x/1 Label.PNG"], "x/1 Label.PNG", "* Label*"),
        (["s1.nii.gz#0001", "s1_seg.nii.gz#0001"], "s1_seg.nii.gz", "*_seg*"),
        (["s1.NII.GZ#0001", "s1_seg.nii.gz#0001"], "s1_seg.nii.gz", "*_seg*"),
        (["COVID/images/C-1.png", "COVID/masks/C-1.png"], "COVID/masks/C-1.png", "*/masks/*"),
        (["COVID/C-1.png", "COVID/masks/C-1.png"], "COVID/masks/C-1.png", "*/masks/*"),
        (["images/ill/1.png", "Ground Truth/ill/1.png"], "Ground Truth/ill/1.png", "Ground Truth/*"),
        (["img/1.png", "ManualMask/leftMask/1.png"], "ManualMask/leftMask/1.png", "ManualMask/*"),
        (["img/1.png", "lung masks/1_mask.png"], "lung masks/1_mask.png", "lung masks/*"),
    ],
)
def test_masks_are_noticed(names: list[str], mask: str, pattern: str, params: Any) -> None:
    with pytest.raises(UserError) as error:
        check_no_masks(["z/other.png", *names], LabelMap(params()))
    assert (error.value.where, error.value.found) == (mask, "is a segmentation mask by its name (1 such files)")
    assert f"data.ignore: ['{pattern}']" in error.value.remedy


def test_masks_in_a_table_are_left_out_by_the_table(params: Any) -> None:
    with pytest.raises(UserError, match=r"x_mask\.png: .*Remove their rows from the table"):
        check_no_masks(["x.png", "x_mask.png"], LabelMap(params()), in_table=True)


@pytest.mark.parametrize(
    "names",
    [
        ["with_mask/1.png", "without_mask/2.png"],
        ["SEG/1.png", "BAND/1.png"],  # segmented and band neutrophils: classes
        ["masked 1.png", "masked 2.png", "1.png"],
        ["with_mask_1.png", "without_mask_1.png"],
        ["a/x_mask.png", "b/x.png"],  # no picture of this name is beside it
        ["masks/1.png", "masks/2.png"],
        ["images/1.png", "masks/2.png"],
        ["segment 1.png", "labels.png", "mask.png"],
        ["x_task.png", "x.png", "x_gtx.png", "masquerade_x.png"],
        ["x_1.png", "x.png", "x (1).png"],
    ],
)
def test_other_names_are_images(names: list[str], params: Any) -> None:
    check_no_masks(names, LabelMap(params(classes=["SEG", "BAND"])))


def test_masks_are_left_out_by_a_pattern_and_counted(
    params: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("Non Demented", "Mild"):
        folder = tmp_path / "busi" / label
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{label} ({number}).png").write_bytes(encoded(number + len(label)))
            (folder / f"{label} ({number})_mask.png").write_bytes(encoded(number))
    changes = {"path": str(tmp_path / "busi"), "classes": ["Non Demented", "Mild"]}
    download(params(**changes), tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=r"_mask\.png: is a segmentation mask by its name \(6 such files\)"):
        prepare(params(**changes), tmp_path / "raw", tmp_path / "prepared")
    prepare(params(**changes, ignore=["*_MASK.*"]), tmp_path / "raw", tmp_path / "prepared")
    store = ImageStore.open(tmp_path / "prepared")
    assert store.header.counts == {"Non Demented": 3, "Mild": 3}
    first = [f"Mild/Mild ({number})_mask.png" for number in range(3)]
    first += [f"Non Demented/Non Demented ({number})_mask.png" for number in range(2)]
    assert store.header.unused == [{"reason": "data.ignore", "count": 6, "first": first}]
    assert f"6 files are not read (data.ignore): {first[0]}" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"data\.ignore: \*_msk\*: matches no file"):
        prepare(params(**changes, ignore=["*_mask*", "*_msk*"]), tmp_path / "raw", tmp_path / "prepared")
