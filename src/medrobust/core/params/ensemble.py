"""Block `ensemble`: the members and the method that combines their outputs."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medrobust.core.errors import UserError
from medrobust.core.params.base import Block, Positive, Share

Regime = Literal["clean", "adv"]
Method = Literal["equal", "convex", "stacking", "blending"]
WHERE = "params.yaml: ensemble.members"


class EnsembleParams(Block):
    """The members and how their outputs are combined; docs/ensemble.md describes the methods."""

    regime: Regime
    members: list[str]
    method: Method
    attacked: list[Method]
    objective: Literal["weighted", "worst"]
    robust_share: Share
    temperature: bool
    min_weight: Share
    folds: Annotated[int, Field(ge=2)]
    holdout: Annotated[float, Field(gt=0, le=0.5)]
    c_grid: Annotated[list[Positive], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_method_once(self) -> "EnsembleParams":
        where, remedy = "params.yaml: ensemble.attacked", "List each other method once"
        if self.method in self.attacked:
            raise UserError(where, f"{self.method} is ensemble.method, which suites attack anyway", remedy)
        if twice := [name for name in self.attacked if self.attacked.count(name) > 1]:
            raise UserError(where, f"{twice[0]} is listed twice", remedy)
        return self

    def cells(self, backbones: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Each member's name, `<backbone>-<regime>`, with its backbone and regime.

        Without `members`, all backbones of the run are members, trained as `regime` says.

        Raises:
            UserError: a member is not a model of the run, or is listed twice.
        """
        known = list(backbones)
        cells: dict[str, tuple[str, str]] = {}
        for member in self.members or known:
            backbone, _, own_regime = member.partition("-")
            regime = own_regime or self.regime
            if backbone not in known or regime not in ("clean", "adv"):
                names = ", ".join([*known, f"{known[0]}-clean", f"{known[0]}-adv"])
                raise UserError(WHERE, f"there is no {member!r}", f"Known, with or without a regime: {names}")
            if f"{backbone}-{regime}" in cells:
                raise UserError(WHERE, f"{backbone}-{regime} is listed twice", "List each model once")
            cells[f"{backbone}-{regime}"] = (backbone, regime)
        return cells
