"""Each stage starts after what it needs, those with the longest way first, whoever runs them."""

from concurrent.futures import Future

from tools.order import affected, heights, run_in_order

#: a -> b, c -> d
DIAMOND: dict[str, set[str]] = {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}


def test_what_changed_and_what_stands_on_it_may_run() -> None:
    assert affected(DIAMOND, {"b"}) == {"b": set(), "d": {"b"}}
    assert affected(DIAMOND, {"a"}) == DIAMOND
    assert affected(DIAMOND, set()) == {}


def test_the_height_is_the_longest_way_to_the_end() -> None:
    needs: dict[str, set[str]] = {"short": set(), "long": set(), "longer": {"long"}, "end": {"short", "longer"}}
    assert heights(needs) == {"short": 1, "long": 2, "longer": 1, "end": 0}


class Recorder:
    """Starts stages that end at once, or when they are told to; keeps the order."""

    def __init__(self, failing: str = "", cancelled: str = "", held: str = "") -> None:
        self.failing, self.cancelled, self.held = failing, cancelled, held
        self.started: list[str] = []
        self.waiting: dict[str, Future[bool]] = {}

    def __call__(self, name: str, height: int) -> Future[bool]:
        self.started.append(name)
        future: Future[bool] = Future()
        if name in self.cancelled:
            future.cancel()
        elif name in self.held and len(self.started) < 4:
            self.waiting[name] = future
        else:
            future.set_result(name not in self.failing)
            for other in self.waiting.values():
                other.set_result(True)
            self.waiting.clear()
        return future


def test_all_run_once_each_after_what_it_needs() -> None:
    start = Recorder()
    assert run_in_order(DIAMOND, start) == []
    assert sorted(start.started) == [*"abcd"]
    assert start.started[0] == "a"
    assert start.started[-1] == "d"


def test_a_stage_waits_for_one_that_has_not_ended() -> None:
    start = Recorder(held="b")
    assert run_in_order({"b": set(), "c": set(), "d": {"b"}}, start) == []
    assert start.started.index("d") == 2


def test_after_a_failure_only_a_run_that_keeps_going_starts_others() -> None:
    needs: dict[str, set[str]] = {"a": set(), "b": {"a"}, "c": set(), "d": {"c"}, "e": {"b", "d"}}
    start = Recorder(failing="a")
    assert run_in_order(needs, start, most=1) == ["a"]
    assert start.started == ["a"]
    start = Recorder(failing="a")
    assert run_in_order(needs, start, most=1, keep_going=True) == ["a"]
    assert start.started == ["a", "c", "d"]


def test_what_was_not_started_has_not_failed() -> None:
    assert run_in_order({"a": set(), "b": set(), "c": {"b"}}, Recorder(failing="a", cancelled="b")) == ["a"]
