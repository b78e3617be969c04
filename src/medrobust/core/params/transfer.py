"""Block `transfer`: whose attacked images are shown to whom."""

from typing import Annotated

from pydantic import Field, model_validator

from medrobust.core.params.base import Block, Radius


class TransferParams(Block):
    """The attack of the transfer matrix; without images there is none."""

    suite: str = ""
    eps: Radius = 0.0
    images: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _something_to_show(self) -> "TransferParams":
        if self.images and not (self.suite and self.eps):
            raise ValueError("transfer.images asks for a transfer matrix: name transfer.suite and an eps above 0")
        return self
