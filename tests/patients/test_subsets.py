"""Patients are rows that hold all their images, in the order of the slices."""

import numpy as np
import pytest
import torch

from medrobust.core.errors import UserError
from medrobust.patients.subsets import no_patient_unit, patient_groups
from tests.patients.cohort import one_group, splits, with_manifest, without


def test_a_row_has_all_images_of_a_patient_in_the_order_of_the_slices() -> None:
    data = splits(slices=5)
    reversed_slices = with_manifest(data, slice=4 - data.store.manifest["slice"])
    images, group = data.subset("test"), one_group(data)
    for position, patient in enumerate(group.ids):
        rows = np.flatnonzero(images.patients == patient)
        assert torch.equal(group.batch([position])[0], images.batch(rows)[:, 0])
        assert set(images.labels[rows]) == {group.labels[position]}
        backwards = one_group(reversed_slices).batch([position])[0]
        assert torch.equal(backwards, images.batch(rows)[:, 0].flip(0))
    assert sorted(group.ids) == sorted(set(images.patients))
    assert group.images_per_row == 5


def test_patients_with_other_numbers_of_images_form_groups_of_their_own() -> None:
    data = splits()
    subset = data.subset("test")
    first, second = sorted(set(subset.patients))[:2]
    dropped = [f"{first}_0", f"{second}_1", f"{second}_2", f"{second}_3"]
    groups = patient_groups(without(data, dropped), "test")
    assert [group.images_per_row for group in groups] == [1, 3, 4]
    assert [group.ids.tolist() for group in groups[:2]] == [[second], [first]]
    images = data.subset("test")
    rows = [int(np.flatnonzero(images.ids == f"{first}_{k}")[0]) for k in (1, 2, 3)]
    assert torch.equal(groups[1].batch([0])[0], images.batch(rows)[:, 0])


def test_colour_images_keep_their_channels_together() -> None:
    data = splits(slices=2)
    colour = np.repeat(data.store.images[..., None], 3, axis=3)
    colour[..., 1] //= 2
    object.__setattr__(data.store, "images", colour)
    images, group = data.subset("test"), one_group(data)
    rows = np.flatnonzero(images.patients == group.ids[0])
    assert torch.equal(group.batch([0])[0], images.batch(rows).reshape(6, 32, 32))


def test_a_part_of_a_group_is_a_group() -> None:
    group = one_group(splits())
    part = group.take(np.array([1]))
    assert torch.equal(part.batch([0]), group.batch([1]))
    assert part.images_per_row == 4


def test_synthetic_images_are_no_images_of_a_patient() -> None:
    data = splits()
    kind = data.store.manifest["kind"].mask(data.store.manifest["slice"] == 3, "synthetic")
    assert one_group(with_manifest(data, kind=kind), "train").images_per_row == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"patient": ""}, r"96 of 96 images have no patient id"),
        ({"patient": "unique"}, r"no patient has more than one image"),
        ({"kind": "synthetic"}, r"val has no real image"),
        ({"patient": "mixed"}, r"1 of 23 patients have images of two labels"),
    ],
)
def test_data_without_a_patient_unit_are_named(change: dict[str, str], reason: str) -> None:
    data = splits()
    patient = data.store.manifest["patient"]
    columns = {
        "": patient.mask(patient != "", ""), "unique": data.store.manifest["id"],
        "mixed": patient.replace({"b0": "a0"}),
    }  # fmt: skip
    assert no_patient_unit(data) is None
    kind = data.store.manifest["kind"].mask(data.table["split"] == "val", "synthetic")
    changed = {"kind": kind} if "kind" in change else {"patient": columns[change["patient"]]}
    assert no_patient_unit(with_manifest(data, **changed)) == reason


def test_a_patient_with_one_image_needs_no_slice_number() -> None:
    data = splits()
    first = sorted(set(data.subset("test").patients))[0]
    alone = without(data, [f"{first}_{k}" for k in (1, 2, 3)])
    number = data.store.manifest["slice"].astype("Int64")
    changed = with_manifest(alone, slice=number.where(data.store.manifest["id"] != f"{first}_0"))
    assert [group.images_per_row for group in patient_groups(changed, "test", ordered=True)] == [1, 4]


@pytest.mark.parametrize("slices", ["unknown", "repeated"])
def test_a_recurrent_aggregate_needs_slice_numbers(slices: str) -> None:
    data = splits()
    number = data.store.manifest["slice"].astype("Int64")
    number = number.where(number != 2) if slices == "unknown" else number.where(number != 2, 1)
    changed = with_manifest(data, slice=number)
    assert patient_groups(changed, "test")
    with pytest.raises(
        UserError, match=r"patient\.aggregate: gru needs .* 6 of 24 have no slice number.*attention"
    ):
        patient_groups(changed, "test", ordered=True)
