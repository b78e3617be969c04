"""Block `attacks`: suites, each a threat model and a list of attacks."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from medrobust.core.errors import UserError
from medrobust.core.params.base import Block, Radius


class SuiteParams(Block):
    """A threat model (norm and eps grid) and the attacks whose worst case is reported.

    Each attack is a mapping with `name` (a key of the attack registry) and its hyper-parameters; the
    attack's own dataclass checks them. `give_up` buys speed with a little strength and is off by default: it ends
    attempts that make too little progress to succeed (attacks/engine/streaming.py).
    """

    norm: Literal["Linf", "L2"]
    eps: Annotated[list[Radius], Field(min_length=1)]
    attacks: Annotated[list[dict[str, Any]], Field(min_length=1)]
    give_up: bool = False

    @field_validator("eps")
    @classmethod
    def _linf_ends_at_one(cls, eps: list[float], info: ValidationInfo) -> list[float]:
        if info.data.get("norm") == "Linf" and max(eps) > 1:
            raise ValueError(f"{max(eps):g}: no pixel can move further than 1; say 8/255 for 8 grey levels")
        return eps


class SurrogateParams(Block):
    """A model of the run whose images a suite's `transfer` tries: `source: <backbone>-<regime>` there."""

    suite: str
    backbone: str
    regime: Literal["clean", "adv"]


class AttacksParams(Block):
    """The suites and their surrogates, and what the checks may cost and do to the run.

    `on_invalid` says what an evaluation that fails its checklist does; `surrogates` names models whose training
    cells of a suite wait for, because its `transfer` tries their images.
    """

    on_invalid: Literal["warn", "fail"]
    check_images: Annotated[int, Field(ge=1)] = 8
    check_queries: Annotated[int, Field(ge=1)] = 50
    surrogates: list[SurrogateParams] = Field(default_factory=list)
    suites: Annotated[dict[str, SuiteParams], Field(min_length=1)]

    @model_validator(mode="after")
    def _surrogates_are_those_of_suites(self) -> "AttacksParams":
        """Each surrogate is a dependency of its suite's cells: it has to stand there once, and be used."""
        listed = [(entry.suite, f"{entry.backbone}-{entry.regime}") for entry in self.surrogates]
        used = {
            (name, str(attack.get("source")))
            for name, suite in self.suites.items()
            for attack in suite.attacks
            if attack.get("name") == "transfer" and not attack.get("sha256")
        }
        if missing := sorted(used - set(listed)):
            suite, source = missing[0]
            remedy = "Add {suite, backbone, regime} there with source: <backbone>-<regime>, or give a sha256"
            raise UserError("params.yaml: attacks.surrogates", f"no {source!r} for {suite!r}", remedy)
        if idle := [entry for entry in listed if entry not in used or listed.count(entry) > 1]:
            suite, source = idle[0]
            remedy = "Name each once, for a suite with {name: transfer, source: <backbone>-<regime>}"
            found = f"{source!r} for {suite!r} is used by no attack, or stands there twice"
            raise UserError("params.yaml: attacks.surrogates", found, remedy)
        return self
