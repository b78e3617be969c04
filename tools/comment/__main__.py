"""Write the comment of a pull request, in the checkout in which the workflow ran.

    python -m tools.comment --base origin/main --steps "$STEPS" --log repro.log --output comment.md

Committed results are compared with committed results: those of the base branch with those of HEAD. Only if the
pull request changes results and did not commit them, and the run reproduced them, its side is the working tree.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from tools.comment.compare import Measure, compare
from tools.comment.freshness import checkout, outdated, touches_results
from tools.comment.paired import fetcher, p_value
from tools.comment.render import render
from tools.comment.results import read_results
from tools.comment.verdict import NONE, NOT_COMMITTED, Verdict, judge
from tools.comment.workflow_run import WorkflowRun, read_run


def comment(root: Path, base: str, run: WorkflowRun, results: str = "") -> tuple[str, Verdict]:
    """The text and the verdict on the committed results.

    Args:
        root: top folder of the checkout.
        base: the revision to compare HEAD with, `origin/main`.
        run: what the workflow did.
        results: the report in Markdown.
    """
    with checkout(root, base) as old, checkout(root, "HEAD") as new:
        before, after = read_results(old), read_results(new)
        touched = touches_results(root, base, "HEAD")
        verdict = judge(run, outdated(new), outdated(old), touched=touched) if after.outs else Verdict(NONE)
    # What this pull request changes and did not commit is known only if the run was whole.
    reproduced = verdict.word == NOT_COMMITTED and run.reproduced
    fetch_base, fetch_this = fetcher(root, base), fetcher(root, None if reproduced else "HEAD")

    def paired(measure: Measure) -> float | None:
        return p_value(measure, fetch_base, fetch_this)

    comparison = compare(before, read_results(root) if reproduced else after, paired)
    text = render(
        base=base.removeprefix("origin/"), run=run, comparison=comparison, verdict=verdict,
        metrics={} if comparison.other_data else changed_metrics(root, base, *([] if reproduced else ["HEAD"])),
        report=results if run.reproduced else "",
    )  # fmt: skip
    return text, verdict


def changed_metrics(root: Path, *revisions: str) -> dict[str, Any]:
    """What `dvc metrics diff` says of two commits, or of one and the working tree; {} if it cannot read one."""
    command = ["dvc", "metrics", "diff", "--json", *revisions]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, encoding="utf-8")
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}
    return found


def main() -> None:
    """Write the comment; append `results=WORD` to the file that GITHUB_OUTPUT names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="origin/main", help="revision to compare HEAD with")
    parser.add_argument("--steps", default="{}", help="the workflow's context `steps` in JSON")
    parser.add_argument("--log", type=Path, default=Path("repro.log"), help="what `dvc repro` printed")
    parser.add_argument("--fork", action="store_true", help="the pull request comes from a fork")
    parser.add_argument("--output", type=Path, help="file for the comment; default: print it")
    args = parser.parse_args()
    root = Path.cwd()
    report = root / "report" / "results.md"
    results = report.read_text(encoding="utf-8") if report.is_file() else ""
    text, verdict = comment(root, args.base, read_run(root, args.steps, args.log, fork=args.fork), results)
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    if outputs := os.environ.get("GITHUB_OUTPUT"):
        with Path(outputs).open("a", encoding="utf-8") as file:
            file.write(f"results={verdict.word}\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
