"""Block `ensemble`: who votes, and how the votes become one."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medrobust.core.errors import UserError
from medrobust.core.params.base import Block, Share

Regime = Literal["clean", "adv"]
Method = Literal["equal", "convex", "stacking", "blending"]
WHERE = "params.yaml: ensemble.members"


class EnsembleParams(Block):
    """Which models vote and how their votes are weighed; docs/ensemble.md says what the methods do."""

    regime: Regime
    robust_share: Share
    members: list[str] = Field(default_factory=list)
    method: Method = "convex"
    attacked: list[Method] = Field(default_factory=list)
    objective: Literal["weighted", "worst"] = "weighted"
    temperature: bool = False
    min_weight: Share = 0.001
    folds: Annotated[int, Field(ge=2)] = 5
    holdout: Annotated[float, Field(gt=0, le=0.5)] = 0.3
    c_grid: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(default=[0.01, 0.1, 1.0])

    @model_validator(mode="after")
    def _each_method_once(self) -> "EnsembleParams":
        where, remedy = "params.yaml: ensemble.attacked", "Name each other method once"
        if self.method in self.attacked:
            raise UserError(where, f"{self.method} is the method in force, which suites attack anyway", remedy)
        if twice := [name for name in self.attacked if self.attacked.count(name) > 1]:
            raise UserError(where, f"{twice[0]} stands there twice", remedy)
        return self

    def cells(self, backbones: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Each member's name, `<backbone>-<regime>`, and its backbone and regime.

        Args:
            backbones: those of the run; all of them in `regime` if no members are named.

        Raises:
            UserError: a member that the run does not have, or one twice.
        """
        known = list(backbones)
        found: dict[str, tuple[str, str]] = {}
        for member in self.members or known:
            backbone, _, said = member.partition("-")
            regime = said or self.regime
            if backbone not in known or regime not in ("clean", "adv"):
                names = ", ".join([*known, f"{known[0]}-clean", f"{known[0]}-adv"])
                raise UserError(WHERE, f"there is no {member!r}", f"Known, each alone or with its regime: {names}")
            if f"{backbone}-{regime}" in found:
                raise UserError(WHERE, f"{backbone}-{regime} stands there twice", "Name each model once")
            found[f"{backbone}-{regime}"] = (backbone, regime)
        return found
