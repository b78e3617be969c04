"""Block `corruptions`: which errors of acquisition models are evaluated on, and what they are compared with."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medrobust.core.params.base import Block, Count

#: Modality -> channels of its images.
CHANNELS = {"mri": 1, "xray": 1, "ct": 1, "photo": 3, "oct": 1}


def _sorted(severities: list[int]) -> list[int]:
    return sorted(set(severities))


class CorruptionsParams(Block):
    """Corruptions of test images; `models.B.corrupt` selects the backbones that are evaluated on them.

    Attributes:
        names: in the registry of corruptions; [] = all of the modality.
        draws: draws of the random parameters per image and severity, 1 without a search for the worst.
        baseline: the model that the mean corruption error compares with.
        suite: the attack suite (Linf) that the figure shows beside the corruptions; None = none.
    """

    modality: Literal["mri", "xray", "ct", "photo", "oct"]
    names: list[str]
    severities: Annotated[list[Annotated[int, Field(ge=1, le=5)]], Field(min_length=1), AfterValidator(_sorted)]
    draws: Count
    baseline: str
    suite: str | None
