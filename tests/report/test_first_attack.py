"""The column of the one-step attack with which a suite begins."""

from medrobust.report.tables.accuracy import attack_table, short_table
from tests.report.test_patient_tables import run


def test_the_first_attack_of_a_suite_has_its_own_columns() -> None:
    found = run()
    before = attack_table(found, "pgd", 0.95)
    key = next(key for key in found.attacks.records if key[-1] == "pgd")
    record = found.attacks.records[key]
    radii = list(record["robust_accuracy"])
    found.attacks.records[key] = record | {
        "first_attack": "fgsm",
        "first_attack_accuracy": dict.fromkeys(radii, 0.7),
        "first_attack_accuracy_ci": {eps: [0.6, 0.8] for eps in radii},
    }
    table = attack_table(found, "pgd", 0.95)
    added = [f"fgsm alone, ε = {eps}" for eps in radii]
    assert table.columns == [*before.columns[:-1], *added, "checklist"]
    cells = {tuple(row[:2]): row[-len(added) - 1 : -1] for row in table.rows}
    assert ["0.700 [0.600, 0.800]"] * len(radii) in cells.values()
    assert all(len(row) == len(table.columns) for row in table.rows)
    short = short_table(found)
    assert "fgsm alone" in short.columns
    assert "0.700 [0.600, 0.800]" in [row[short.columns.index("fgsm alone")] for row in short.rows]
    assert all(len(row) == len(short.columns) for row in short.rows)


def test_without_such_an_attack_there_is_no_column() -> None:
    found = run()
    assert not [column for column in attack_table(found, "pgd", 0.95).columns if "alone" in column]
    assert not [column for column in short_table(found).columns if "alone" in column]
