"""Does the checklist see masked gradients? `python -m benchmarks.masking [--seed 2]` prints a table.

Two suites (`truth.SUITES`) evaluate each model. Attacks that may circumvent its mask are tried on every fourth
image (`truth.py`). The checklist runs with the default params. Thresholds were chosen on models and images of
seed 1, without the kinds in `zoo.HELD_OUT`. It takes ten minutes on one core. Trained networks and true robust
accuracies are kept in tmp/masking, so that a second run takes three minutes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.masking.networks import EPS
from benchmarks.masking.truth import DEFAULT, STRONG, WEAK, claimed, true_robust
from benchmarks.masking.zoo import ENTRIES, HELD_OUT, Entry, Workshop
from medrobust.attacks.engine.attempts import worst_case
from medrobust.checklist.run import CheckedModel, check_model

#: The attacks of `truth.py` are tried on one of this many images.
EVERY = 4
#: Error of a claimed robust accuracy above which the verdict must not be "no problem found".
WRONG = 0.05
HEADINGS = (
    "kind", "model", WEAK, STRONG, "true", f"verdict of {WEAK}", f"verdict of {STRONG}",
    f"checks of {STRONG} that did not pass",
)  # fmt: skip


def measure(entry: Entry, shop: Workshop, truth: float | None) -> dict[str, Any]:
    """Claimed and true robust accuracy of a model (measured if it is None), verdicts, and checks that object."""
    model, images = entry.build(shop), shop.test
    evaluations = claimed(model, images)
    tables = {name: worst_case(attempts, suite["eps"]) for name, (suite, attempts) in evaluations.items()}
    robust = {
        name: ~table[table["eps"] == EPS].set_index("id").loc[images.ids, "fooled"].to_numpy()
        for name, table in tables.items()
    }
    some = np.arange(0, len(images), EVERY)
    if truth is None:
        still = np.all([*robust.values()], axis=0)[some]
        truth = float(true_robust(model, images.take(some), still).mean())
    checked = CheckedModel(
        model=model,
        subset=images,
        suites={name: suite for name, (suite, _) in evaluations.items()},
        attempts={name: attempts for name, (_, attempts) in evaluations.items()},
        adversarial="robust" in entry.kind + entry.name,
    )
    record = check_model(checked, eps=EPS, params=DEFAULT.attacks, report=DEFAULT.report, seed=0)
    suites = {
        name: {
            "claimed": float(robust[name][some].mean()),
            "verdict": suite["verdict"],
            "found": [k for k, v in (record["model"] | suite["checks"]).items() if v.startswith(("warn", "fail"))],
        }
        for name, suite in record["suites"].items()
    }
    return {"kind": entry.kind, "name": entry.name, "true": truth, "suites": suites}


def cells(row: dict[str, Any]) -> str:
    """A row of the table: kind, model, then claimed and true robust accuracy, verdicts and checks."""
    weak, strong = row["suites"][WEAK], row["suites"][STRONG]
    found = ", ".join(strong["found"]) or "–"
    kind = row["kind"] + (" (held out)" if row["kind"] in HELD_OUT else "")
    numbers = f"{weak['claimed']:.2f} | {strong['claimed']:.2f} | {row['true']:.2f}"
    return f"| {kind} | {row['name']} | {numbers} | {weak['verdict']} | {strong['verdict']} | {found} |"


def summary(rows: list[dict[str, Any]]) -> str:
    """Count suites that claim too much without a warning, and false alarms of the default suite."""
    masked = [row for row in rows if row["kind"] != "sound"]
    sound = [row for row in rows if row["kind"] == "sound"]
    wrong = [(row, s) for row in rows for s in row["suites"].values() if s["claimed"] - row["true"] > WRONG]
    missed = [row["name"] for row, suite in wrong if suite["verdict"] == "no problem found"]
    fair = [row for row in sound if row["suites"][STRONG]["claimed"] - row["true"] <= WRONG]
    alarms = [row["name"] for row in fair if row["suites"][STRONG]["verdict"] != "no problem found"]
    return (
        f"{len(masked)} masked and {len(sound)} sound models. {len(wrong)} evaluations are wrong by more than "
        f"{WRONG:.0%}; {len(missed)} of them have no problem found {missed or ''}. False alarms on "
        f"{len(alarms)} of {len(fair)} sound models that {STRONG} evaluates within {WRONG:.0%} {alarms or ''}."
    )


def main() -> None:
    """Measure every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=2, help="of images and networks; 1 was used to choose thresholds"
    )
    parser.add_argument("--folder", type=Path, default=Path("tmp/masking"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.folder / f"true-{args.seed}.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    shop, rows = Workshop(args.seed, args.folder), []
    print(f"| {' | '.join(HEADINGS)} |")
    print("|---" * len(HEADINGS) + "|")
    for entry in ENTRIES:
        name = f"{entry.kind}: {entry.name}"
        rows.append(measure(entry, shop, known.get(name)))
        known[name] = rows[-1]["true"]
        args.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known))
        print(cells(rows[-1]), flush=True)
    print(f"\n{summary(rows)}")


if __name__ == "__main__":
    main()
