"""The checklist gives the same record on another device as on the CPU."""

import copy

from torch import nn

from tests.checklist.conftest import Check, suite_of
from tests.other_device import other_device


def test_all_checks_agree_on_another_device(sound: nn.Module, noisy: nn.Module, check: Check) -> None:
    suites = {"s": suite_of([{"name": "pgd", "steps": 4}])}
    expected = check(sound, suites, count=6, queries=10, siblings={"noisy": noisy})
    with other_device() as device:
        model, sibling = (copy.deepcopy(one).to(device) for one in (sound, noisy))
        found = check(model, suites, count=6, queries=10, siblings={"noisy": sibling})
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
