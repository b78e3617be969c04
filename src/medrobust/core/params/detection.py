"""Block `detect`: the detectors, the attacks that test them, and the prices of errors."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medrobust.core.errors import UserError
from medrobust.core.params.base import Block, Count, Named, Natural, NotNegative, Radius, Share
from medrobust.core.params.training import BackboneParams

Price = NotNegative
AdaptiveName = Literal["joint", "orthogonal", "matching", "ind", "ood"]


class AdaptiveParams(Block):
    """Attackers who know the detector."""

    attacks: list[AdaptiveName]
    images: Natural
    steps: Count
    searches: Count


class RiskParams(Block):
    """Prices, in units of an error by one grade, and the shares of attacked images for which costs are given."""

    under: Price
    over: Price
    reject: Price
    reject_attacked: Price
    shares: Annotated[list[Share], Field(min_length=1)]


class DetectParams(Block):
    """The detectors, how they are fitted, and how they are tested.

    Each backbone's own block selects its models that get detectors (`models.B.detect`); `ensemble` does so for the
    ensemble.
    """

    ensemble: list[Literal["clean", "adv"]]
    detectors: Named[dict[str, Any]]
    suites: Named[Radius]
    seen: str | None
    fpr: Annotated[float, Field(gt=0, lt=1)]
    train_images: Annotated[int, Field(ge=2)]
    test_images: Annotated[int, Field(ge=2)]
    adaptive: AdaptiveParams
    risk: RiskParams

    def cells(self, models: Mapping[str, BackboneParams]) -> list[tuple[str, str]]:
        """(model, regime) of each model that gets detectors, the ensemble last; `models` is that block.

        Raises:
            UserError: there is such a model, but no detector or no suite.
        """
        detected = {**{name: model.detect for name, model in models.items()}, "ensemble": self.ensemble}
        cells = [(name, str(regime)) for name, regimes in detected.items() for regime in regimes]
        if cells and not (self.detectors and self.suites):
            lacking = "detect.suites" if self.detectors else "detect.detectors"
            found = f"empty, but {'-'.join(cells[0])} gets detectors"
            remedy = "Set it, or set models.*.detect and detect.ensemble to []"
            raise UserError(f"params.yaml: {lacking}", found, remedy)
        return cells

    @model_validator(mode="after")
    def _suites_attack(self) -> "DetectParams":
        if self.seen is not None and self.seen not in self.suites:
            raise ValueError(f"detect.seen must be one of detect.suites: {', '.join(self.suites) or 'none'}")
        if any(eps == 0 for eps in self.suites.values()):
            raise ValueError("detect.suites: the radius must be above 0")
        return self
