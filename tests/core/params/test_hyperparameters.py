"""What annotations say about hyper-parameters is what is refused, with the user's own key."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from torch import Tensor, zeros

from medrobust.core.errors import UserError
from medrobust.core.params.base import Count, NotNegative, Positive
from medrobust.core.params.hyperparameters import Part, build, check_values


@dataclass(frozen=True, kw_only=True)
class Knobs:
    eps: NotNegative
    steps: Count = 10
    share: Part = 0.5
    lr: Positive | None = None
    loss: Literal["ce", "margin"] = "ce"
    mask: Literal["tumour"] | Tensor | None = None
    costs: list[list[float]] | None = None
    verbose: bool = False
    handed: "NotThere | None" = field(default=None, repr=False)  # type: ignore[name-defined]  # noqa: F821

    def __post_init__(self) -> None:
        check_values(self, "attack")
        if self.steps == 13:
            raise UserError("attack", "13 steps", "Take another number")


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"steps": 1, "share": 1, "lr": 1e-3}, {"loss": "margin", "verbose": True}, {"costs": [[0, 1], [2, 0]]},
        {"mask": "tumour"}, {"mask": zeros(2)}, {"lr": 1},
    ],
)  # fmt: skip
def test_what_is_allowed_is_taken(settings: dict[str, Any]) -> None:
    made = build(Knobs, settings, "suite.knobs", eps=0.1)
    assert all(getattr(made, key) is value for key, value in settings.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"^suite\.knobs\.steps: got 0\. Input should be greater than or equal to 1$"),
        ({"steps": 2.5}, r"knobs\.steps: got 2\.5\. Input should be a valid integer"),
        ({"steps": "10"}, r"knobs\.steps: got '10'"),
        ({"steps": True}, r"knobs\.steps: got True"),
        ({"share": 0}, r"knobs\.share: got 0\. Input should be greater than 0"),
        ({"share": 1.5}, r"knobs\.share: got 1\.5\. Input should be less than or equal to 1"),
        ({"lr": -1e-3}, r"knobs\.lr: got -0\.001\. Input should be greater than 0"),
        ({"loss": "dlr"}, r"knobs\.loss: got 'dlr'\. Input should be 'ce' or 'margin'"),
        ({"mask": "tumor"}, r"knobs\.mask: got 'tumor'\. Input should be 'tumour'"),
        ({"costs": [[0, "much"]]}, r"knobs\.costs: got "),
        ({"verbose": 1}, r"knobs\.verbose: got 1"),
        ({"step": 3}, r"knobs\.step: unknown hyper-parameter\. Known: steps, share, lr, loss, mask, costs, "),
        ({"handed": None}, r"knobs\.handed: unknown hyper-parameter"),
        ({"eps": 0.1}, r"knobs\.eps: unknown hyper-parameter"),
        ({"steps": 13}, r"^suite\.knobs: 13 steps\. Take another number$"),
    ],
)  # fmt: skip
def test_what_is_not_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(Knobs, settings, "suite.knobs", eps=0.1)


def test_what_code_says_is_checked_too() -> None:
    with pytest.raises(UserError, match=r"^attack\.eps: got -0\.1"):
        Knobs(eps=-0.1)
