"""Block `attacks`: suites, each a threat model and a list of attacks."""

from typing import Annotated, Any, Literal

from pydantic import Field

from medrobust.params.base import Block, Eps


class SuiteParams(Block):
    """A threat model (norm and eps grid) and the attacks whose worst case is reported.

    Each attack is a mapping with `name` (a key of the attack registry) and its hyper-parameters; the
    attack's own dataclass checks them. Two settings buy speed with a little strength, and are off by default:
    `precision: bf16` lets a copy of the model in bfloat16 propose while the model judges, `give_up` ends attempts
    that make too little progress to succeed (attacks/pool.py).
    """

    norm: Literal["Linf", "L2"]
    eps: Annotated[list[Eps], Field(min_length=1)]
    attacks: Annotated[list[dict[str, Any]], Field(min_length=1)]
    precision: Literal["fp32", "bf16"] = "fp32"
    give_up: bool = False


class AttacksParams(Block):
    """The suites, and what an evaluation that fails its checklist does to the run."""

    on_invalid: Literal["warn", "fail"]
    suites: Annotated[dict[str, SuiteParams], Field(min_length=1)]
