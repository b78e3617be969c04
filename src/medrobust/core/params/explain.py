"""Block `explain`: the attack under which models are explained, and the number of maps and pictures."""

from typing import Annotated

from pydantic import Field

from medrobust.core.params.base import Block, Radius


class ExplainParams(Block):
    """The attack and the maps of explanations; `models.B.explain` selects the backbones that are explained."""

    suite: str
    eps: Radius
    images: Annotated[int, Field(ge=0)]
    drift_images: Annotated[int, Field(ge=0)]
    grid: Annotated[int, Field(ge=1)]
    top: Annotated[float, Field(gt=0, lt=1)]
    surface: Annotated[int, Field(ge=0)]
