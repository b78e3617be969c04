"""Block `detect`: who is guarded by what, how it is tested, and what errors cost."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medrobust.core.params.base import Block, Radius, Share

Price = Annotated[float, Field(ge=0)]
AdaptiveName = Literal["joint", "orthogonal", "matching", "ind", "ood"]


class AdaptiveParams(Block):
    """Attackers who know the detector."""

    attacks: list[AdaptiveName] = Field(default=["joint"])
    images: Annotated[int, Field(ge=0)] = 64
    steps: Annotated[int, Field(ge=1)] = 10
    searches: Annotated[int, Field(ge=1)] = 2


class RiskParams(Block):
    """Prices, in units of one error of one grade, and the shares of attacked images that are swept."""

    under: Price = 2.0
    over: Price = 1.0
    reject: Price = 0.5
    reject_attacked: Price = 0.0
    shares: Annotated[list[Share], Field(min_length=1)] = Field(default=[1e-4, 1e-3, 1e-2, 0.1, 0.5])


class DetectParams(Block):
    """Which models get detectors, fitted how, tested against what."""

    models: list[str] = Field(default_factory=list)
    regimes: list[Literal["clean", "adv"]] = Field(default=["clean", "adv"])
    ensemble: list[Literal["clean", "adv"]] = Field(default_factory=list)
    detectors: dict[str, dict[str, Any]] = Field(default={"gmm": {}})
    suites: dict[str, Radius] = Field(default_factory=dict)
    seen: str | None = None
    fpr: Annotated[float, Field(gt=0, lt=1)] = 0.05
    train_images: Annotated[int, Field(ge=2)] = 2000
    test_images: Annotated[int, Field(ge=2)] = 2000
    adaptive: AdaptiveParams = Field(default_factory=AdaptiveParams)
    risk: RiskParams = Field(default_factory=RiskParams)

    def cells(self) -> list[tuple[str, str]]:
        """(model, regime) of everything that gets detectors, the ensemble last."""
        models = [(model, regime) for model in self.models for regime in self.regimes]
        return [*models, *(("ensemble", regime) for regime in self.ensemble)]

    @model_validator(mode="after")
    def _something_to_test(self) -> "DetectParams":
        if self.cells() and not (self.detectors and self.suites):
            raise ValueError("detect.models or detect.ensemble asks for detection: name detectors and suites too")
        if self.seen is not None and self.seen not in self.suites:
            raise ValueError(f"detect.seen must be one of detect.suites: {', '.join(self.suites) or 'none'}")
        if any(eps == 0 for eps in self.suites.values()):
            raise ValueError("detect.suites: eps 0 attacks nothing")
        return self
