"""The attacks that the page offers."""

import pytest
import torch

from medrobust.app.attack_choices import BUDGET, FIRST, RANGES, attack_choices
from medrobust.attacks.projection import distance
from tests.small import make_classifier


def test_only_attacks_that_need_nothing_but_an_image_and_answer_soon_are_offered() -> None:
    choices = attack_choices()
    assert {"fgsm (Linf)", "pgd_l2 (L2)", "cw_pgd (Linf)", "cw_pgd (L2)", FIRST} <= set(choices)
    names = {choice.name for choice in choices.values()}
    # Training images, a surrogate, the name of another library's attack; thousands of queries.
    assert names.isdisjoint({"universal", "transfer", "torchattacks", "autoattack", "square"})
    assert max(choice.at(0.01).cost for choice in choices.values()) <= BUDGET


@pytest.mark.parametrize("label", attack_choices())
def test_each_is_described_and_moves_an_image_inside_its_ball(label: str) -> None:
    choice = attack_choices()[label]
    assert choice.label == label
    assert choice.summary.endswith(".")
    assert "\n" not in choice.summary
    eps = RANGES[choice.norm][0]
    images = torch.full((1, 1, 12, 12), 0.4)
    attacked = choice.at(eps)(
        make_classifier().eval(), images, torch.tensor([0]), seeds=torch.zeros(1, dtype=torch.int64)
    )
    moved = float(distance(attacked, images, choice.norm))
    assert 0 < moved <= eps * 1.0001
