"""Block `patient`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medrobust.core.params.base import Block, Count, Eps, Positive


def _strictly_rising(counts: list[int]) -> list[int]:
    if sorted(set(counts)) != counts:
        raise ValueError("Put the numbers in rising order, each once")
    return counts


class PatientParams(Block):
    """How a patient's images become one decision, and the attacker who may change some of the images."""

    aggregate: Literal["none", "mean", "max", "attention", "gru"]
    hidden: Count
    epochs: Count
    lr: Positive
    suites: list[str]
    attacked_images: Annotated[list[Count], AfterValidator(_strictly_rising)]
    eps: Annotated[Eps, Field(gt=0)]
