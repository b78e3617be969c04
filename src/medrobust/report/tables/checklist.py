"""Tables of the checklist: verdicts, and checks that did not pass."""

from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table
from medrobust.report.templates import table_note


def verdicts_table(run: Run) -> Table:
    """The checklist's verdict on every evaluation."""
    rows = [
        [model, TRAINING[regime], *(run.verdict_of(model, regime, suite) for suite in run.suites)]
        for model, regime in run.models()
    ]
    return Table("Checklist: verdicts", ["model", "training", *run.suites], rows, table_note("verdicts"))


def checks_table(run: Run) -> Table:
    """Every check that did not pass, what that means and what to do."""
    rows = []
    for (model, regime), record in run.attacks.checks.items():
        results = [("all", check, line) for check, line in record.get("model", {}).items()]
        for suite, part in record.get("suites", {}).items():
            results += [(suite, check, line) for check, line in part["checks"].items()]
        for suite, check, line in results:
            outcome, measured = line.split(": ", 1)
            if outcome in {"warn", "fail"}:
                advice = [record.get(name, {}).get(check, NONE) for name in ("means", "remedies")]
                rows.append([model, TRAINING[regime], suite, check, outcome, measured, *advice])
    samples = [record["images"] for record in run.attacks.checks.values() if record.get("images")]
    note = table_note("checks", images=min(samples, default=0))
    columns = ["model", "training", "suite", "check", "outcome", "measured", "what it means", "what to do"]
    return Table("Checklist: what did not pass", columns, rows, note, folded=True)
