"""Verdict on a split (clean, suspect or leaking) and its reasons in words."""

from typing import Any

#: If images of the same patient raise the accuracy of the 1-nearest-neighbour by more than this, the split leaks.
MAX_GAP = 0.05


def decide_verdict(metrics: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the verdict on `Audit.metrics` and its reasons, leaks first."""
    leaks, doubts = _leaks(metrics), _doubts(metrics)
    return "leaking" if leaks else "suspect" if doubts else "clean", leaks + doubts


def _leaks(m: dict[str, Any]) -> list[str]:
    """Findings that certainly make test accuracy wrong."""
    reasons = []
    if shared := m["test_patients_in_train"]:
        reasons.append(f"{shared} of {m['test_patients']} test patients are also in train")
    if m["test_patients_in_val"] and not shared:
        reasons.append(f"{m['test_patients_in_val']} of {m['test_patients']} test patients are also in val")
    if copies := m["test_images_with_exact_copy"]:
        reasons.append(f"{copies} of {m['test_images']} test images have an exact copy in train or val")
    if children := m["synthetic_children_of_test_patients"]:
        found = f"{children} of {m['synthetic_images']} synthetic images"
        reasons.append(f"{found} were made from test patients and are in train or val")
    if m["nn_gap"] is not None and m["nn_gap"] > MAX_GAP:
        reasons.append(
            f"a 1-nearest-neighbour, which learns nothing, has an accuracy of {m['nn_accuracy']:.1%}, but only "
            f"{m['nn_accuracy_without_own_patient']:.1%} without images of the test patient"
        )
    return reasons


def _doubts(m: dict[str, Any]) -> list[str]:
    """Findings that may make test accuracy wrong or less meaningful."""
    sentences = [
        ("val_patients_in_train", "val_patients", "val patients are also in train: tuning is biased"),
        ("val_images_with_exact_copy", "val_images", "val images have an exact copy in train: tuning is biased"),
        ("val_images_with_near_copy", "val_images", "val images have a near copy in train: tuning may be biased"),
        ("test_images_with_near_copy", "test_images", "test images have a near copy in train or val"),
        ("images_with_two_labels", "images", "images have an exact copy with another label"),
        ("near_pairs_with_two_labels", "near_pairs", "pairs of near copies have different labels"),
        ("look_alike_ids", "patients", "patient ids look like another one: they may be one person"),
        ("synthetic_of_unknown_parent", "synthetic_images", "synthetic images have no known parent"),
        ("synthetic_test_images", "test_images", "test images are synthetic"),
        ("real_images_without_patient", "real_images",
         "real images have no patient id: overlap cannot be ruled out"),
        ("test_images_of_suspected_patients_across", "test_images", "test images may be of the same patient as "
         "similar images in train or val: a patient id is missing"),
    ]  # fmt: skip
    reasons = [f"{m[count]} of {m[base]} {text}" for count, base, text in sentences if m[count]]
    if m["nn_gap_suspected"] is not None and m["nn_gap_suspected"] > MAX_GAP:
        reasons.append(
            f"on test images without a patient id, the accuracy of a 1-nearest-neighbour falls by "
            f"{m['nn_gap_suspected']:.1%}, to {m['nn_accuracy_without_suspected_patient']:.1%}, "
            "without images of the suspected patient"
        )
    single = [label for label, count in m["patients_by_class"]["test"].items() if count == 1]
    if single:
        reasons.append(f"only one test patient of {', '.join(single)}: metrics of the class describe one person")
    if absent := m["classes_not_in_test"]:
        reasons.append(f"no test image of {', '.join(absent)}: metrics do not cover the class")
    return reasons
