"""The verdicts at the top of the page: the split, the attacks, and files that are missing or of another run."""

from typing import Any

from medrobust.core.versions import by_package
from medrobust.report.run import Run
from medrobust.report.tables.data import audit_reasons

#: Classes of style for verdicts of the checklist, in tables too.
WORDS = {"no problem found": "good", "suspect": "doubt", "unchecked": "doubt", "invalid": "bad", "missing": "bad"}
#: The same with verdicts of the audit; in tables "clean" is a kind of training.
TONES = {**WORDS, "clean": "good", "leaking": "bad", "several": "doubt", "not as published": "doubt"}
#: Title of the section with the checklist.
CHECKLIST = "Can these numbers be trusted?"
#: Files that a card names; the rest is only counted.
NAMED = 8


def verdicts(run: Run) -> list[dict[str, Any]]:
    """One card per verdict: `of`, `verdict`, `reasons`, `tone`."""
    audit = run.audit.get("verdict", "missing")
    cards = [{"of": "Audit of the split", "verdict": audit, "reasons": audit_reasons(run)}]
    for name, external in run.external.items():
        if external.audit:
            verdict, reasons = external.audit["verdict"], external.audit["reasons"]
            # A card without a reason would read as a verdict on the results.
            nothing = "no image has a copy among the own images, and no patient id is in train or validation"
            cards.append({
                "of": f"External data: {name}", "verdict": verdict,
                "reasons": [nothing] if verdict == "clean" else reasons,
            })  # fmt: skip
    if doubt := run.header.get("doubt"):
        cards.append({"of": "Data", "verdict": "not as published", "reasons": [doubt]})
    failed = sorted({check for record in run.attacks.checks.values() for check in record.get("means", {})})
    reasons = [f"did not pass everywhere: {', '.join(failed)} (see “{CHECKLIST}”)"] if failed else []
    cards.append({"of": "Checklist of the attacks", "verdict": run.worst_verdict(), "reasons": reasons})
    if run.missing:
        reasons = [*run.missing[:NAMED], *_more(len(run.missing))]
        cards.append({"of": "Missing results", "verdict": f"{len(run.missing)} files", "reasons": reasons})
    if run.foreign:
        cards.append(_foreign(run))
    elif run.provenance is None:
        reasons = ["there is no DVC repository with a dvc.lock to compare the files with"]
        cards.append({"of": "Origin of the numbers", "verdict": "not checked", "reasons": reasons})
    if reasons := _versions(run):
        cards.append({"of": "Versions of packages", "verdict": "several", "reasons": reasons})
    return [{**card, "tone": TONES.get(str(card["verdict"]), "bad")} for card in cards]


def _versions(run: Run) -> list[str]:
    """What each package with more than one version computed; [] if all results have the same versions."""
    reasons = [
        f"{package}: " + ", ".join(f"{number} ({count} files)" for number, count in sorted(counts.items()))
        for package, counts in by_package(run.versions.values()).items()
        if len(counts) > 1
    ]
    note = "A new version alone runs no stage again. Run dvc repro --force to compute all results with the same."
    return [*reasons, note] if reasons else []


def _foreign(run: Run) -> dict[str, Any]:
    by_reason: dict[str, list[str]] = {}
    for path, reason in run.foreign.items():
        by_reason.setdefault(reason, []).append(path)
    reasons = [
        f"{reason}: {paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        for reason, paths in list(by_reason.items())[:NAMED]
    ]
    way = "Their numbers are left out. Run dvc repro to compute them again, with --force if nothing has changed."
    reasons += [*_more(len(by_reason)), way]
    return {"of": "Not of this run", "verdict": f"{len(run.foreign)} files", "reasons": reasons}


def _more(count: int) -> list[str]:
    return [f"and {count - NAMED} more"] if count > NAMED else []
