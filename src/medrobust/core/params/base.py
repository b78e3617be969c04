"""What every block of params.yaml is made of: strict frozen models and the pixel-unit number."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Block(BaseModel):
    """A block of params.yaml: immutable; an unknown key, infinity and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def parse_fraction(value: Any) -> Any:
    """Turn `8/255` (a string in YAML) into a float; anything else passes through for pydantic to judge.

    Raises:
        ValueError: the string is no number and no fraction of two numbers.
    """
    if not isinstance(value, str):
        return value
    numerator, _, denominator = value.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{value!r} is neither a number nor a fraction such as 8/255") from None


def _in_pixel_units(value: float) -> float:
    if value > 1:
        raise ValueError("Pixels are in [0, 1]; say 8/255 for 8 grey levels")
    return value


#: A distance in [0, 1] pixel units; YAML may say 0.03 or 8/255.
Eps = Annotated[float, BeforeValidator(parse_fraction), AfterValidator(_in_pixel_units), Field(ge=0)]
#: The radius of a ball whose norm is not known here: in L2 it grows with the number of pixels.
Radius = Annotated[float, BeforeValidator(parse_fraction), Field(ge=0)]


def rising(pair: list[float]) -> list[float]:
    """A smallest and a largest value, which may be the same.

    Raises:
        ValueError: the larger comes first.
    """
    if pair[0] > pair[1]:
        raise ValueError("Give the smaller value first")
    return pair


#: Above zero.
Positive = Annotated[float, Field(gt=0)]
#: A share between 0 and 1, both included.
Share = Annotated[float, Field(ge=0, le=1)]
#: The ends of a range above 0: smallest, largest.
Range = Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(rising)]
