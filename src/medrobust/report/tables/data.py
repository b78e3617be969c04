"""Text and tables of the data: origin, what was verified, what is left out, the audit, and the split."""

from collections import Counter
from pathlib import PurePosixPath

from medrobust.report.run import Run
from medrobust.report.tables.table import NONE, Table
from medrobust.report.templates import table_note

#: Reasons for skipping that are named, the most frequent first.
NAMED = 5
#: Characters of a file's name up to which it cannot be told from other words or numbers.
SHORT = 3


def data_text(run: Run) -> list[str]:
    """Source, licence, citation, what was compared with the publication, and what was left out."""
    header = run.header
    if not header:
        return []
    address = f" ({header['url']})" if header.get("url") else ""
    lines = [
        f"Source: {header.get('source')}{address}. Licence: {header.get('licence')}.",
        f"Cite: {header.get('citation')}.",
        f"Verified against the publication: {header.get('verified', 'nothing')}.",
    ]
    if skipped := header.get("skipped"):
        reasons = Counter(_without_name(row) for row in skipped).most_common()
        named = "; ".join(f"{reason} ({count})" for reason, count in reasons[:NAMED])
        named += f"; {len(reasons) - NAMED} other reasons (header.json)" if len(reasons) > NAMED else ""
        lines.append(f"{len(skipped)} images were skipped: {named}.")
    if unused := header.get("unused"):
        named = "; ".join(f"{entry['count']} ({entry['reason']})" for entry in unused)
        lines.append(f"Files that were not read: {named}.")
    if left := header.get("left_out"):
        labels = ", ".join(f"{count} of {label}" for label, count in left.items())
        lines.append(f"Left out by their label (data.labels): {labels}.")
    if absent := [name for name in run.classes() if run.split and not run.split.get("test", {}).get(name)]:
        lines.append(f"No test image of {', '.join(absent)}: no number of this report covers it.")
    return lines


def _without_name(row: dict[str, str]) -> str:
    """The reason why an image was skipped, without the name of its file, which may be that of a patient."""
    path, reason = PurePosixPath(row["id"]), row["reason"]
    for name in (row["id"], path.name, path.stem):
        reason = reason.replace(name, "(file)") if len(name) > SHORT else reason
    return reason


def audit_reasons(run: Run) -> list[str]:
    """The audit's reasons; for a clean split, what it searched for and did not find."""
    audit = run.audit
    reasons: list[str] = audit.get("reasons", [])
    shared = [audit.get(f"test_patients_in_{part}") for part in ("train", "val")]
    copies = [audit.get(f"{kind}_pairs_across_splits") for kind in ("exact", "near")]
    if reasons or any([*shared, *copies]) or None in (*shared, *copies):
        return reasons
    count = audit.get("test_patients")
    return [f"none of {count} test patients is in train or validation, and no image has a copy in another split"]


def audit_table(run: Run) -> Table:
    """Every count and share of the audit.

    A count is shown as a part of another one (`3 of 25`) if its name starts with the name of that one.
    """
    counts = {name: value for name, value in run.audit.items() if type(value) in (int, float)}
    rows = []
    for name, value in counts.items():
        whole = next((base for base in counts if name.startswith(f"{base}_") and type(value) is int), None)
        rows.append([name.replace("_", " "), f"{value} of {counts[whole]}" if whole else str(value)])
    return Table("Audit of the split: counts", ["what", "count or share"], rows, table_note("audit"), folded=True)


def split_table(run: Run) -> Table:
    """Images and patients of each split, by class."""
    classes = run.header.get("classes", [])
    rows = []
    for name, part in run.split.items():
        patients = part.get("patients_by_class", {})
        cells = [f"{part.get(label, 0)} ({patients.get(label, NONE)})" for label in classes]
        rows.append([name, str(part["images"]), str(part["patients"]), *cells])
    note = "Columns of classes: images (patients)."
    return Table("Split", ["split", "images", "patients", *classes], rows, note)
