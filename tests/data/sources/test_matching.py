"""Files for the paths in a table: by folder, prefix, extension and case; several files are never one."""

import pytest

from medrobust.data.sources.matching import FileFinder

FLAT = ["a.png", "b.jpg"]
TREE = ["wrap/train/p1/v1.jpg", "wrap/train/p2/v1.jpg", "wrap/test/p3/v2.JPG"]
TWINS = ["train/IDRiD_01.jpg", "test/IDRiD_01.jpg", "test/IDRiD_02.jpg"]


@pytest.mark.parametrize(
    ("names", "path", "found"),
    [
        (FLAT, "a.png", ["a.png"]),
        (FLAT, "./a.png", ["a.png"]),
        (FLAT, "a", ["a.png"]),
        (FLAT, "A.PNG", ["a.png"]),
        (FLAT, "A", ["a.png"]),
        (FLAT, "a.jpg", []),
        (FLAT, "c.png", []),
        (FLAT, "", []),
        (TREE, "train/p1/v1.jpg", [TREE[0]]),  # the data have a folder more
        (TREE, "p1/v1", [TREE[0]]),
        (TREE, "v1.jpg", TREE[:2]),
        (TREE, "v2", [TREE[2]]),
        (TREE, "CheXpert-v1.0/wrap/train/p2/v1.jpg", [TREE[1]]),  # the table has a folder more
        (TREE, "X/WRAP/Test/p3/V2.jpg", [TREE[2]]),
        (TREE, "train/p4/v1.jpg", []),  # only its last part is a file: another patient's
        (TREE, "other/train/p1/v1.jpg", []),
        (TWINS, "IDRiD_01", TWINS[:2]),
        (TWINS, "idrid_01.jpg", TWINS[:2]),
        (TWINS, "IDRiD_02", [TWINS[2]]),
        (["a.png", "A.png"], "a.png", ["a.png"]),
        (["a.png", "A.png"], "A", ["A.png"]),
        (["x/a.png", "x/A.png"], "aa.png", []),
        (["a.png", "a.jpg"], "a", ["a.png", "a.jpg"]),
        (["a", "a.png"], "a", ["a"]),
        (["sub-1.nii.gz", "sub-10.nii.gz"], "sub-1", ["sub-1.nii.gz"]),
        (["sub-1.NII.GZ", "sub-2.Nii.gz"], "sub-1", ["sub-1.NII.GZ"]),
        (["v.1.nii.gz", "v.2.nii.gz"], "v.2", ["v.2.nii.gz"]),
        (["s/1.2.840.1", "s/1.2.840.2"], "1.2.840.2", ["s/1.2.840.2"]),
        (["x/e\u0301.png"], "\u00e9.png", ["x/e\u0301.png"]),
    ],
)
def test_a_path_finds_its_files(names: list[str], path: str, found: list[str]) -> None:
    assert FileFinder(names, [path]).find(path) == found


def test_a_folder_in_front_is_ignored_only_if_all_paths_have_it() -> None:
    """`1.png` of one site must not stand for `1.png` of another."""
    assert FileFinder(["1.png"], ["site 2/1.png", "site 2/2.png"]).find("site 2/1.png") == ["1.png"]
    assert FileFinder(["1.png"], ["site 1/2.png", "site 2/1.png"]).find("site 2/1.png") == []
    paths = ["CheXpert/train/1.png", "CheXpert/valid/1.png", ""]
    finder = FileFinder(["train/1.png", "valid/1.png"], paths)
    assert [finder.find(path) for path in paths] == [["train/1.png"], ["valid/1.png"], []]
    assert FileFinder(["1.png"], paths).find("CheXpert/train/1.png") == []


def test_paths_of_every_depth_are_found() -> None:
    finder = FileFinder(["w/a/1.png", "w/2.png"], ["1", "a/1.png", "2.png"])
    assert [finder.find(path) for path in ("1", "a/1.png", "2.png")] == [["w/a/1.png"], ["w/a/1.png"], ["w/2.png"]]


def test_paths_may_be_relative_to_the_folder_of_the_table() -> None:
    finder = FileFinder(["top/a.png", "a.png"], ["a.png"], "top/")
    assert finder.find("a.png") == ["top/a.png"]
    assert FileFinder(["a.png"], ["a.png"], "top/").find("a.png") == ["a.png"]


def test_files_inside_a_folder() -> None:
    finder = FileFinder(["sub-1/anat/t1.nii", "sub-10/anat/t1.nii"], ["sub-1"])
    assert finder.inside("Sub-1/") == ["sub-1/anat/t1.nii"]
    assert finder.inside("anat") == []


def test_a_similar_file_has_another_extension() -> None:
    finder = FileFinder(["z.png", "x/scan.png"], ["scan.dcm"])
    assert finder.similar("scan.dcm") == "x/scan.png"
    assert finder.similar("none.dcm") == "z.png"
    assert FileFinder([], ["a"]).similar("a") == ""
