"""Tables of the checklist: verdicts, and checks that did not pass."""

from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table


def verdicts_table(run: Run) -> Table:
    """The checklist's verdict on every evaluation."""
    rows = [
        [model, TRAINING[regime], *(run.verdict_of(model, regime, suite) for suite in run.suites)]
        for model, regime in run.models()
    ]
    note = (
        "invalid: a check failed, so do not cite the number. suspect: a check gave a warning, listed below. "
        "unchecked: the checklist did not run."
    )
    return Table("Checklist: verdicts", ["model", "training", *run.suites], rows, note)


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
    note = (
        "A failed check makes a number invalid, a warning makes it suspect. All other checks passed, or did not "
        "apply (for example a check of ensembles on a single model). The folder metrics/checks has all results, "
        "and docs/checklist.md the thresholds." + _power(run)
    )
    columns = ["model", "training", "suite", "check", "outcome", "measured", "what it means", "what to do"]
    return Table("Checklist: what did not pass", columns, rows, note, folded=True)


def _power(run: Run) -> str:
    """The smallest share of images at which the checks on samples find a fault with a chance of 95 %."""
    samples = [record["images"] for record in run.attacks.checks.values() if record.get("images")]
    if not samples:
        return ""
    count = min(samples)
    return (
        f" Checks that run attacks try at most {count} images per model (attacks.check_images). They can miss a "
        f"fault that appears on fewer than {1 - 0.05 ** (1 / count):.0%} of the images that the suite did not "
        "fool."
    )
