"""The test bench of benchmarks/masking: its size, its held-out kinds, and its summary."""

from typing import Any

from benchmarks.masking.__main__ import cells, summary
from benchmarks.masking.truth import STRONG, WEAK
from benchmarks.masking.zoo import HELD_OUT, MASKED, SOUND


def test_the_bench_has_the_promised_models() -> None:
    kinds = {entry.kind for entry in MASKED}
    assert len(MASKED) >= 25
    assert len({(entry.kind, entry.name) for entry in MASKED}) == len(MASKED)
    assert len(kinds) >= 10
    assert set(HELD_OUT) < kinds
    assert 3 * len(HELD_OUT) >= len(kinds)
    assert len(set(SOUND)) == len(SOUND) >= 20


def row(kind: str, claimed: float, true: float, verdict: str) -> dict[str, Any]:
    found = ["gain"] if verdict != "no problem found" else []
    suites = {name: {"claimed": claimed, "verdict": verdict, "found": found} for name in (WEAK, STRONG)}
    return {"kind": kind, "name": f"{kind} {claimed}", "true": true, "suites": suites}


def test_the_summary_counts_missed_masks_and_false_alarms() -> None:
    rows = [
        row("ripple", 0.9, 0.3, "invalid"),
        row("votes", 0.8, 0.7, "no problem found"),
        row("sound", 0.5, 0.5, "no problem found"),
        row("sound", 0.6, 0.58, "suspect"),
        row("sound", 0.7, 0.6, "suspect"),  # as it should be: the suite is too weak
    ]
    text = summary(rows)
    assert text.startswith("2 masked and 3 sound models. 6 evaluations are wrong by more than 5%; 2 of them")
    assert "['votes 0.8', 'votes 0.8']" in text
    assert text.endswith("False alarms on 1 of 2 sound models that white_box evaluates within 5% ['sound 0.6'].")
    expected = "| votes (held out) | votes 0.8 | 0.80 | 0.80 | 0.70 | no problem found | no problem found | – |"
    assert cells(rows[1]) == expected
