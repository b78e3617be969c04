"""What the workflow did on the pull request: steps, the pipeline's log, and files that differ from the commit."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tools.git_calls import git

#: The id of each step that decides the outcome, and its name.
STEPS = {
    "tests": "Set up and test",
    "remote": "Look for the remote",
    "repro": "Reproduce what changed",
}
#: Lines of the log that are shown if the pipeline failed.
TAIL = 25


@dataclass(frozen=True)
class WorkflowRun:
    """The outcome of one run."""

    mode: str = ""  # full | smoke; empty if it did not get so far
    because: str = ""  # why smoke
    failed: list[str] = field(default_factory=list)  # names of failed steps
    failed_stage: str = ""
    ran: list[str] = field(default_factory=list)  # stages
    tail: list[str] = field(default_factory=list)  # of the log, if the pipeline failed
    differ: list[str] = field(default_factory=list)  # results that are not as committed
    not_pushed: int = 0  # files that dvc.lock names and the remote lacks
    fork: bool = False

    @property
    def reproduced(self) -> bool:
        """Whether the whole pipeline is now up to date in the working tree, with the committed params."""
        return self.mode == "full" and not self.failed

    @property
    def counts(self) -> str:
        """Stages that ran, by kind: `attack 6, train`."""
        kinds = Counter(name.partition("@")[0] for name in self.ran)
        return ", ".join(kind if count == 1 else f"{kind} {count}" for kind, count in kinds.items())


def read_run(root: Path, steps: str, log: Path, *, fork: bool) -> WorkflowRun:
    """Read the run.

    Args:
        root: top folder of the checkout in which the pipeline ran.
        steps: the context `steps` of the workflow in JSON: id -> `outcome` and `outputs`.
        log: what `dvc repro` printed; may be missing.
        fork: whether the pull request comes from a fork.
    """
    known = json.loads(steps or "{}")
    failed = [name for key, name in STEPS.items() if known.get(key, {}).get("outcome") in ("failure", "cancelled")]
    outputs = {**known.get("remote", {}).get("outputs", {}), **known.get("repro", {}).get("outputs", {})}
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    broken = re.findall(r"failed to reproduce '([^']+)'", text)
    mode = outputs.get("mode", "")
    return WorkflowRun(
        mode=mode,
        because=outputs.get("because", ""),
        failed=failed,
        failed_stage=broken[-1] if broken else "",
        ran=re.findall(r"^Running stage '([^']+)'", text, flags=re.MULTILINE),
        tail=text.splitlines()[-TAIL:] if STEPS["repro"] in failed else [],
        differ=changed_files(root) if mode == "full" and STEPS["repro"] not in failed else [],
        not_pushed=int(outputs.get("not_pushed") or 0),
        fork=fork,
    )


def changed_files(root: Path) -> list[str]:
    """Files among dvc.lock, metrics and plots that differ from the last commit."""
    lines = git(root, "status", "--porcelain", "--untracked-files=all", "--", "dvc.lock", "metrics", "plots")
    return [line.split(maxsplit=1)[1] for line in lines.splitlines()]
