"""Block `attacks`: suites, each a threat model and a list of attacks."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from medrobust.params.base import Block, Radius


class SuiteParams(Block):
    """A threat model (norm and eps grid) and the attacks whose worst case is reported.

    Each attack is a mapping with `name` (a key of the attack registry) and its hyper-parameters; the
    attack's own dataclass checks them. Two settings buy speed with a little strength, and are off by default:
    `precision: bf16` lets a copy of the model in bfloat16 propose while the model judges, `give_up` ends attempts
    that make too little progress to succeed (attacks/pool.py).
    """

    norm: Literal["Linf", "L2"]
    eps: Annotated[list[Radius], Field(min_length=1)]
    attacks: Annotated[list[dict[str, Any]], Field(min_length=1)]
    precision: Literal["fp32", "bf16"] = "fp32"
    give_up: bool = False

    @field_validator("eps")
    @classmethod
    def _linf_ends_at_one(cls, eps: list[float], info: ValidationInfo) -> list[float]:
        if info.data.get("norm") == "Linf" and max(eps) > 1:
            raise ValueError(f"{max(eps):g}: no pixel can move further than 1; say 8/255 for 8 grey levels")
        return eps


class AttacksParams(Block):
    """The suites, what an evaluation that fails its checklist does to the run, and what the checks may cost."""

    on_invalid: Literal["warn", "fail"]
    check_images: Annotated[int, Field(ge=1)] = 8
    check_queries: Annotated[int, Field(ge=1)] = 50
    suites: Annotated[dict[str, SuiteParams], Field(min_length=1)]
