"""Block `external`: other data sets, whose labels are all named, and results of `medrobust evaluate`."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.params.external import ExternalSetParams
from tests.core.params.changed import load_changed
from tests.params import default_block, preset

FILES: dict[str, Any] = {"source": "archive", "path": "b.zip", "classes": {"AD": "MildDemented"}, "suites": [],
                         "patient_suites": []}  # fmt: skip


def refused(folder: Path, message: str, **changes: Any) -> None:
    """Assert that an external set with such values is refused."""
    with pytest.raises(UserError, match=message):
        load_changed(folder, "external.sets", {"b": {**FILES, **changes}})


def test_a_label_needs_a_class_of_the_run_and_a_suite_must_exist(tmp_path: Path) -> None:
    refused(tmp_path, r"sets\.b\.classes: 'AD' is mapped to 'Mild', which is not in data\.classes\. Map it to one "
            r"of NonDemented, .*, or to null \(or set external\.sets: {}\)", classes={"AD": "Mild"})  # fmt: skip
    refused(tmp_path, r"sets\.b\.suites: there is no 'pdg'. Known: white_box", suites=["pdg"])
    refused(tmp_path, r"sets\.b\.patient_suites: there is no 'pdg'. Known: white_box", patient_suites=["pdg"])
    refused(tmp_path, r"sets\.b\.classes: Dictionary should have at least 1 item", classes={})
    refused(tmp_path, r"sets\.b\.image_size: unknown key.*Known here: .*classes", image_size=64)
    assert load_changed(tmp_path, "external.sets", {"b": {**FILES, "classes": {1: None, "x": "NonDemented"}}})


def test_the_name_of_a_set_can_be_part_of_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"external\.sets\.site-b: got 'site-b'.*Use letters, digits and _"):
        load_changed(tmp_path, "external.sets", {"site-b": FILES})


def test_a_set_is_evaluated_by_the_pipeline_or_without_it(tmp_path: Path) -> None:
    entry = {"set": "Site_C", "file": "e.json"}
    with pytest.raises(
        UserError, match=r"external: evaluated has the set 'Site_C', which is also one of external\."
    ):
        load_changed(tmp_path, "external.evaluated", [entry])
    found = load_changed(tmp_path, "external.evaluated", [{**entry, "set": "b"}, {**entry, "set": "b"}])
    assert found.external.names == ["site_c", "b"]


def test_external_data_are_read_as_the_own_ones_but_for_where_they_are_and_what_labels_mean() -> None:
    own = default_block(
        DataParams, "data", image_size=40, labels={"x": "MildDemented"}, groups={"sex": "categories"},
        ignore=["*_mask*"], sha256="1" * 64,
    )  # fmt: skip
    found = ExternalSetParams.model_validate({**FILES, "classes": {"AD": "MildDemented", "?": None}}).as_data(own)
    assert (found.source, found.path, found.sha256, found.image_size) == ("archive", "b.zip", None, 40)
    assert (found.ignore, found.groups, found.phantom) == ([], {}, None)
    assert found.label_names == {"AD": "MildDemented", "?": None}
    assert found.needed_classes == ["MildDemented"]
    assert found.classes == own.classes == preset()["data"]["classes"]
    assert own.label_names == {**{name: name for name in own.classes}, "x": "MildDemented"}
