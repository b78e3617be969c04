"""The verdict on a split, clean, suspect or leaking, and the reasons for it in words."""

from typing import Any

#: A gain of the 1-NN by the own patient's images above this is called a leak (as a share of accuracy).
GAP = 0.05


def judge(metrics: dict[str, Any]) -> tuple[str, list[str]]:
    """The verdict and its reasons, leaks before doubts.

    Args:
        metrics: the counts and accuracies that `audit.py` collects.
    """
    leaks, doubts = _leaks(metrics), _doubts(metrics)
    return "leaking" if leaks else "suspect" if doubts else "clean", leaks + doubts


def _leaks(m: dict[str, Any]) -> list[str]:
    """What makes test accuracy wrong for certain."""
    reasons = []
    if shared := m["test_patients_in_train"]:
        reasons.append(f"{shared} of {m['test_patients']} test patients also stand in train")
    if m["test_patients_in_val"] and not shared:
        reasons.append(f"{m['test_patients_in_val']} of {m['test_patients']} test patients stand in val")
    if copies := m["test_images_with_exact_copy"]:
        reasons.append(f"{copies} test images have a byte-identical copy in train or val")
    if children := m["synthetic_children_of_test_patients"]:
        reasons.append(f"{children} synthetic images in train or val were made from test patients")
    if m["nn_gap"] is not None and m["nn_gap"] > GAP:
        reasons.append(
            f"a nearest neighbour without learning scores {m['nn_accuracy']:.1%}, and "
            f"{m['nn_accuracy_without_own_patient']:.1%} without the patient's own images"
        )
    return reasons


def _doubts(m: dict[str, Any]) -> list[str]:
    """What may make it wrong, or mean less than it seems."""
    near = m["test_images_with_near_copy"] - m["test_images_with_exact_copy"]
    sentences = [
        (m["val_patients_in_train"], "{} val patients stand in train: tuning sees them"),
        (near, "{} test images have a near copy in train or val"),
        (m["label_conflicts"], "{} images stand under two labels"),
        (m["near_label_conflicts"], "{} pairs of near copies carry different labels"),
        (m["look_alike_patients"], "{} groups of patient ids look like one person each"),
        (m["synthetic_of_unknown_parent"], "{} synthetic images of unknown parents are used"),
        (m["synthetic_test_images"], "{} test images are synthetic"),
        (m["images_without_patient"] - m["synthetic_of_unknown_parent"],
         "{} images have no patient id: overlap cannot be ruled out"),
        (m["test_images_of_suspected_patients_across"],
         "{} test images may be of one patient with images in train or val: alike, and a patient id is missing"),
    ]  # fmt: skip
    reasons = [text.format(count) for count, text in sentences if count > 0]
    if m["nn_gap_suspected"] is not None and m["nn_gap_suspected"] > GAP:
        reasons.append(
            f"on images without a patient id a nearest neighbour loses {m['nn_gap_suspected']:.1%} of accuracy "
            f"without the suspected patient's images and scores {m['nn_accuracy_without_suspected_patient']:.1%}"
        )
    single = [label for label, count in m["patients_by_class"]["test"].items() if count == 1]
    if single:
        reasons.append(f"one test patient of {', '.join(single)}: figures of the class speak of one person")
    if absent := m["classes_not_in_test"]:
        reasons.append(f"no test image of {', '.join(absent)}: figures say nothing of the class")
    return reasons
