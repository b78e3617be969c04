"""Where the images come from, how far that was verified, and which of them are not there."""

from collections import Counter

from medrobust.report.collect import Run

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
        f"Compared with the publication: {header.get('verified', 'nothing')}.",
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
