"""Where the images come from, how far that was verified, which are not there, and what the audit counted."""

from collections import Counter

from medrobust.report.collect import Run
from medrobust.report.tables.cells import Table

#: Reasons for skipping that are named, the most frequent first; some hold the name of a file or patient.
NAMED = 5


def data_text(run: Run) -> list[str]:
    """Source, licence, citation, what was compared with the publication, and what was left out."""
    header = run.header
    if not header:
        return []
    address = f" ({header['url']})" if header.get("url") else ""
    lines = [
        f"Source: {header.get('source')}{address}. Licence: {header.get('licence')}.",
        f"Cite: {header.get('citation')}.",
        f"Checked against what the publisher says: {header.get('verified', 'nothing')}.",
    ]
    if skipped := header.get("skipped"):
        reasons = Counter(row["reason"] for row in skipped).most_common()
        said = "; ".join(f"{reason} ({count})" for reason, count in reasons[:NAMED])
        said += f"; {len(reasons) - NAMED} other reasons (header.json)" if len(reasons) > NAMED else ""
        lines.append(f"{len(skipped)} images were skipped: {said}.")
    if left := header.get("left_out"):
        said = ", ".join(f"{count} of {label}" for label, count in left.items())
        lines.append(f"Left out by their label (data.labels): {said}.")
    if absent := [name for name in run.classes() if run.split and not run.split.get("test", {}).get(name)]:
        lines.append(f"No test image of {', '.join(absent)}: nothing below says how well they are recognised.")
    return lines


def audit_words(run: Run) -> list[str]:
    """The audit's reasons; of a clean split, what it looked for and did not find."""
    audit = run.audit
    reasons: list[str] = audit.get("reasons", [])
    shared = [audit.get(f"test_patients_in_{part}") for part in ("train", "val")]
    copies = [audit.get(f"{kind}_pairs_across_splits") for kind in ("exact", "near")]
    if reasons or any([*shared, *copies]) or None in (*shared, *copies):
        return reasons
    count = audit.get("test_patients")
    return [f"none of {count} test patients is in train or validation, and no image has a copy in another split"]


def audit_table(run: Run) -> Table:
    """Everything that the audit counted."""
    rows = [
        [name.replace("_", " "), str(value)]
        for name, value in run.audit.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    note = (
        "nn accuracy: how often the class of the most similar image of the other splits is right, without any "
        "learning; where it falls without a patient's own images (nn gap), the split leaks."
    )
    return Table("Audit of the split: what was counted", ["what", "count or share"], rows, note, folded=True)
