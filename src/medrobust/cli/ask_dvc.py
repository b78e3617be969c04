"""What DVC says about a clone, as lines of JSON; a process of its own, which `medrobust doctor` ends in time."""

import json
import sys
from collections.abc import Iterator
from threading import Lock, Thread
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.remotes import held, without_secrets


def facts(repo: Any) -> Iterator[dict[str, Any]]:
    """The remotes of a repository, and the stages of dvc.yaml without an entry in dvc.lock."""
    from dvc.dvcfile import load_file

    default = repo.config["core"].get("remote")
    yield {
        "remotes": [
            {"name": name, "address": without_secrets(str(block.get("url")), block), "default": name == default}
            for name, block in repo.config["remote"].items()
        ]
    }
    # The names alone: to build all stages takes DVC seconds.
    pipeline = load_file(repo, "dvc.yaml")
    names, entries = list(pipeline.resolver.get_keys()), pipeline._lockfile.load().get("stages", {})
    yield {"stages": len(names), "without": [name for name in names if name not in entries]}


def answer(repo: Any, name: str) -> dict[str, str]:
    """Whether a remote answers, in words."""
    try:
        held(repo, name, [])
    except UserError as error:
        return {"remote": name, "answer": error.found}
    return {"remote": name, "answer": "answers"}


def main() -> None:
    """Print the facts, and then the answer of each remote as soon as it comes."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    lock = Lock()

    def tell(fact: dict[str, Any]) -> None:
        with lock:
            sys.stdout.write(f"{json.dumps(fact)}\n")
            sys.stdout.flush()

    def ask(name: str) -> None:
        with Repo(sys.argv[1]) as own:
            tell(answer(own, name))

    try:
        with Repo(sys.argv[1]) as repo:
            threads = [Thread(target=ask, args=[name]) for name in repo.config["remote"]]
            for thread in threads:
                thread.start()
            for fact in facts(repo):
                tell(fact)
            for thread in threads:  # a library that asks cannot work while the interpreter ends
                thread.join()
    except DvcException as error:
        tell({"error": " ".join(str(error).split())})


if __name__ == "__main__":
    main()
