"""Whether DVC's default remote can be used here, as `name=value` lines for a workflow (docs/team.md).

`dvc remote list` and `dvc pull --allow-missing` pass where the folder of a remote is on another machine or S3 has
no keys, and the pipeline then ends in "Checkout failed". So the remote is asked for one file that dvc.lock names.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from dvc.repo import Repo

from medrobust.core.errors import UserError
from medrobust.core.remotes import held


class Probe(NamedTuple):
    """What a remote is good for.

    Attributes:
        state: `ready`, `empty` (it answers, and has nothing that dvc.lock names) or `unusable`.
        because: why it is not ready; empty if it is.
        missing: outputs of dvc.lock that it does not have.
    """

    state: str
    because: str = ""
    missing: int = 0

    def lines(self) -> str:
        """The outputs of a workflow's step; `mode` is what a pull request runs."""
        mode = "full" if self.state == "ready" else "smoke"
        return f"state={self.state}\nmode={mode}\nbecause={self.because}\nnot_pushed={self.missing}\n"


def probe(root: Path) -> Probe:
    """Ask the default remote of a repository for the outputs that dvc.lock names."""
    with Repo(str(root)) as repo:
        name = repo.config["core"].get("remote")
        if not name:
            return Probe("unusable", "DVC has no default remote")
        hashes = _hashes(repo)
        try:
            found = held(repo, name, hashes)
        except UserError as error:
            return Probe("unusable", f"{error.where} {error.found}")
        if not found:
            return Probe("empty", f"the remote {name} has nothing that dvc.lock names; run `dvc push`")
        return Probe("ready", missing=len({*hashes} - found))


def _hashes(repo: Repo) -> list[str]:
    """Hashes of the cached outputs in dvc.lock."""
    outs = (out for stage in repo.index.stages for out in stage.outs if out.use_cache and out.hash_info)
    return list(dict.fromkeys(out.hash_info.value for out in outs))


def main() -> None:
    """Print what the workflow needs to know."""
    sys.stdout.write(probe(Path.cwd()).lines())


if __name__ == "__main__":
    main()
