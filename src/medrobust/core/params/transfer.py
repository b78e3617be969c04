"""Block `transfer`: the attack of the transfer matrix, which evaluates each model on the images of the others."""

from pydantic import model_validator

from medrobust.core.params.base import Block, Natural, Positive, Radius


class TransferParams(Block):
    """The attack of the transfer matrix; `images: 0` switches it off."""

    suite: str
    eps: Radius
    member_eps: list[Positive]
    images: Natural

    @model_validator(mode="after")
    def _attack_is_set(self) -> "TransferParams":
        if self.images and not (self.suite and self.eps):
            raise ValueError("transfer.images asks for a transfer matrix: set transfer.suite and an eps above 0")
        return self
