"""Blocks `ensemble` and `report`."""

from typing import Annotated, Literal

from pydantic import Field

from medrobust.params.base import Block, Share


class EnsembleParams(Block):
    """Which models vote and how their weights are fitted."""

    regime: Literal["clean", "adv"]
    robust_share: Share


class ReportParams(Block):
    """What the report says beyond the numbers."""

    title: str
    bootstrap: Annotated[int, Field(ge=1)]
    confidence: Share
    sheet: Annotated[int, Field(ge=0)] = 6
