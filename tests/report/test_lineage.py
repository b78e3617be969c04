"""A result that was swapped between models, splits or suites is left out, even if dvc.lock knows its file."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON, TABLES, table_hashes
from medrobust.core.params.corruptions import CorruptionsParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import read_json, read_metrics, read_table, write_json, write_table
from medrobust.report.page.render import page_content, render_html
from medrobust.report.publish.model_cards import publish
from medrobust.report.tables.corruptions import read_corruptions
from medrobust.report.tables.detection import read_detection
from medrobust.report.tables.explanations import read_explanations
from tests.params import default_block
from tests.report.pipeline import lock
from tests.report.runs import SETTINGS, folders, read, write_attacked_method, write_record
from tests.report.test_cards import backbone, published

SAME = "all belong to one run"


def swap(folder: Path, one: str, other: str) -> None:
    """Exchange two files, and let dvc.lock know them so, as `dvc commit` or a wrong merge would."""
    first, second, spare = folder / one, folder / other, folder / "spare"
    for source, target in ((first, spare), (second, first), (spare, second)):
        shutil.move(source, target)
    lock(folder)


@pytest.mark.parametrize(("one", "other"), [
    ("metrics/attack/one-adv-pgd.json", "metrics/attack/two-adv-pgd.json"),
    ("metrics/train/one-clean.json", "metrics/train/one-adv.json"),
    ("metrics/checks/one-clean.json", "metrics/checks/ensemble-adv.json"),
    ("metrics/attack/one-adv-pgd.json", "metrics/attack/ensemble-adv-pgd.json"),
])  # fmt: skip
def test_records_of_two_models_that_were_swapped_are_left_out(folder: Path, one: str, other: str) -> None:
    assert SAME in render_html(page_content(read(folder, checked=True), SETTINGS), {})
    swap(folder, one, other)
    run = read(folder, checked=True)
    reason = "it was made on weights other than this model's"
    assert run.foreign == {str(folder / path): reason for path in (one, other)}
    assert SAME not in render_html(page_content(run, SETTINGS), {})


def test_no_card_is_published_with_a_record_of_another_model(folder: Path) -> None:
    swap(folder, "metrics/attack/one-adv-pgd.json", "metrics/attack/two-adv-pgd.json")
    with pytest.raises(UserError, match=r"one-adv-pgd\.json: it was made on weights other than this model's"):
        publish(published(backbone(folder), folder=folder), folders(folder), folder / "out")


@pytest.mark.parametrize(("path", "key"), [
    ("audit.json", "split"), ("audit.json", "data"), ("tune/one.json", "split"), ("train/one-adv.json", "data"),
    ("attack/one-adv-pgd.json", "suite"), ("checks/one-adv.json", "suites"), ("ensemble.json", "models"),
    ("transfer.json", "models"), ("transfer.json", "suites"), ("split.json", "data"),
    ("methods/equal-pgd.json", "weights"), ("checks/equal-method.json", "weights"),
])  # fmt: skip
def test_every_record_is_compared(folder: Path, path: str, key: str) -> None:
    write_attacked_method(folder)
    where = folder / "metrics" / path
    record = read_metrics(where)
    found: Any = record[MADE_ON][key]
    record[MADE_ON][key] = dict.fromkeys(found, "other") if isinstance(found, dict) else "other"
    write_record(where, record)
    assert str(where) in read(folder, attacked=("equal",)).foreign
    del record[MADE_ON]
    write_record(where, {**record, MADE_ON: None})
    assert read(folder, attacked=("equal",)).foreign[str(where)] == "it does not say what it was made on"


def test_detection_explanations_and_corruptions_are_compared_too(folder: Path) -> None:
    for kind in ("detect", "explain", "corrupt"):
        where = folder / "metrics" / kind / "one-clean.json"
        write_record(where, {"n": 1, MADE_ON: {"weights": "other"}})
    run = read(folder)
    read_detection(run, folders(folder), [("one", "clean")])
    read_explanations(run, folder / "metrics", ["one"])
    corruptions = default_block(CorruptionsParams, "corruptions")
    read_corruptions(run, folder / "metrics", None, ["one"], corruptions, default_block(ReportParams, "report"))
    assert [Path(path).parent.name for path in run.foreign] == ["detect", "explain", "corrupt"]
    assert run.detect == run.explain == run.corruptions.records == {}


def test_a_checkpoint_of_other_images_and_predictions_of_another_ensemble_are_left_out(folder: Path) -> None:
    card = folder / "data" / "checkpoints" / "two" / "adv" / "card.json"
    write_json(card, {**read_json(card), "data": "other"})
    predictions = folder / "data" / "predictions" / "ensemble.parquet"
    table = read_table(predictions)
    table.attrs[MADE_ON] = {**table.attrs[MADE_ON], "weights": "other"}
    write_table(predictions, table)
    run = read(folder)
    assert {str(card), str(predictions)} <= set(run.foreign)
    assert run.training.cards["two", "adv"] == {}
    assert run.ensemble.model not in run.confusion


@pytest.mark.parametrize(("record", "table"), [
    ("attack/one-adv-pgd.json", "attack/one-adv-pgd.csv"), ("train/one-adv.json", "train/one-adv/confusion.csv"),
    ("train/one-adv.json", "train/one-adv/history.csv"), ("tune/one.json", "tune/one/trials.csv"),
    ("transfer.json", "transfer/matrix.csv"),
])  # fmt: skip
def test_a_table_must_be_the_one_that_was_written_with_its_record(folder: Path, record: str, table: str) -> None:
    where, path = folder / "metrics" / record, folder / "plots" / table
    content = read_metrics(where)
    write_record(where, {**content, TABLES: table_hashes(path)})
    assert read(folder).foreign == {}
    path.write_bytes(path.read_bytes() + b"\n")
    assert read(folder).foreign == {str(path): "its stage wrote another table with its metrics"}
