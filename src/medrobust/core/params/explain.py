"""Block `explain`: the attack under which models are explained, and the number of maps and pictures."""

from typing import Annotated, Literal

from pydantic import Field

from medrobust.core.params.base import Block, Count, Natural, Radius


class ExplainParams(Block):
    """The attack and the maps of explanations; `models.B.explain` selects the backbones that are explained."""

    suite: str
    eps: Radius
    images: Natural
    drift_images: Natural
    grid: Count
    top: Annotated[float, Field(gt=0, lt=1)]
    tsne: Literal["clean", "attacked"]
    surface: Natural
