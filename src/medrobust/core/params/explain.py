"""Block `explain`: whose answers are explained, under which attack, and how much of it."""

from typing import Annotated

from pydantic import Field, model_validator

from medrobust.core.params.base import Block, Radius


class ExplainParams(Block):
    """Which models get maps, and what an attack does to them."""

    models: list[str] = Field(default_factory=list)
    suite: str | None = None
    eps: Radius = 0.0
    images: Annotated[int, Field(ge=0)] = 1
    drift_images: Annotated[int, Field(ge=0)] = 0
    grid: Annotated[int, Field(ge=1)] = 4
    top: Annotated[float, Field(gt=0, lt=1)] = 0.2
    surface: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _an_attack_to_look_at(self) -> "ExplainParams":
        if self.models and (self.suite is None or not self.eps):
            raise ValueError("explain.models asks for explanations: name a suite, and an eps above 0")
        return self
