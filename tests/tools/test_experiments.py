"""`make experiments` shows what differs between runs, and no numbers that are not a run's own."""

from typing import Any

from tools.experiments import columns, differing, notes, table


def revision(eps: float, robust: float | None = None, **more: Any) -> dict[str, Any]:
    """A commit or experiment as `dvc exp show --json` prints it."""
    metrics = {"metrics/attack/one.json": {"data": {"robust@0.01": robust, **more}}} if robust is not None else {}
    params = {"params.yaml": {"data": {"seed": 1, "adv": {"eps": eps, "alpha": "auto"}, "list": [1]}}}
    return {"rev": "0123456789", "name": None, "data": {"params": params, "metrics": metrics}, "error": None}


def experiment(name: str, state: str | None, *revisions: dict[str, Any]) -> dict[str, Any]:
    executor = {"state": state} if state else None
    return {"name": name, "executor": executor, "revs": list(revisions)}


def shown(*experiments: dict[str, Any]) -> list[dict[str, Any]]:
    base = {**revision(0.02, 0.5, n=3), "name": "main", "experiments": list(experiments)}
    return [{**revision(0.3, 0.3), "rev": "workspace", "experiments": None}, base]


def test_rows_are_values_and_metrics_that_differ() -> None:
    found = columns(
        shown(
            experiment("a", None, revision(0.01, 0.25, n=3)), experiment("b", "success", revision(0.02, 0.5, n=3))
        )
    )
    assert differing(found) == ["adv.eps", "attack/one robust@0.01"]
    assert table(found, 80).splitlines() == [
        "                          main     a     b",
        "state                   commit  done  done",
        "adv.eps                   0.02  0.01  0.02",
        "attack/one robust@0.01     0.5  0.25   0.5",
    ]
    assert notes(found) == []


def test_failed_and_queued_runs_show_no_metrics_of_their_base() -> None:
    """DVC gives a failed run those of the commit that it started from."""
    found = columns(
        shown(experiment("bad", "failed", revision(0.3, 0.5)), experiment("next", "queued", revision(0.4)))
    )
    assert [column.metrics is None for column in found] == [False, True, True]
    assert differing(found) == ["adv.eps"]
    (note,) = notes(found)
    assert note.startswith("failed: bad; `dvc exp show` gives them the metrics of their base")


def test_a_running_run_shows_its_epoch() -> None:
    found = columns(shown(experiment("now", "running", revision(0.01, 0.5, n=3, epoch=2))))
    assert "attack/one epoch" in differing(found)
    assert table(found, 80).splitlines()[-1].split() == ["attack/one", "epoch", "-", "2"]
    assert "stages that have not run yet" in notes(found)[0]


def test_columns_without_room_follow_in_blocks(capsys: Any) -> None:
    found = columns(shown(*(experiment(f"run-{n}", None, revision(n / 100, n / 10)) for n in range(1, 6))))
    blocks = table(found, 50).split("\n\n")
    assert len(blocks) > 1
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 50
    names = [name for block in blocks for name in block.splitlines()[0].split()]
    assert names == ["main", "run-1", "run-2", "run-3", "run-4", "run-5"]
    assert all(block.splitlines()[2].startswith("adv.eps") for block in blocks)


def test_an_experiment_without_a_name_has_its_revision() -> None:
    content = experiment("", None, revision(0.01, 0.2))
    assert columns(shown(content))[1].name == "0123456"
