"""Block `attacks`: suites, each a threat model with a list of attacks."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from medrobust.core.errors import UserError
from medrobust.core.params.base import Block, Count, Named, Radius

WHERE = "params.yaml: attacks.surrogates"


#: The attack that `transfer` runs on its surrogate by default. Of the simple attacks it transfers best: it has
#: momentum, and goes on behind the surrogate's decision boundary (Dong et al. 2018).
SURROGATE_ATTACK: dict[str, Any] = {
    "name": "iterative", "loss": "margin", "momentum": 1.0, "random_start": False, "stop_when_fooled": False,
}  # fmt: skip


class SuiteParams(Block):
    """A threat model (norm and eps grid) and the attacks whose worst case per image is reported.

    A radius of the norm `patch` is the area of one square with any content, as a share of the image's pixels.

    Each attack is a mapping with `name` (a key of the attack registry) and its hyper-parameters; the attack's own
    dataclass checks them. The optional key `give_up` makes attacks faster and slightly weaker: it ends attempts
    whose progress is too slow to succeed (attacks/engine/streaming.py).
    """

    norm: Literal["Linf", "L2", "patch"]
    eps: Annotated[list[Radius], Field(min_length=1)]
    attacks: Annotated[list[dict[str, Any]], Field(min_length=1)]
    give_up: bool = False

    def attack_names(self) -> set[str]:
        """Names in the attack registry, including those of attacks that a `transfer` runs on its surrogate."""
        inner = [spec.get("attack", SURROGATE_ATTACK) for spec in self.attacks if spec.get("name") == "transfer"]
        return {str(spec.get("name")) for spec in (*self.attacks, *inner) if isinstance(spec, dict)}

    @field_validator("eps")
    @classmethod
    def _radii_end_at_one(cls, eps: list[float], info: ValidationInfo) -> list[float]:
        if info.data.get("norm") == "patch" and max(eps) > 1:
            raise ValueError(f"{max(eps):g}: a patch covers at most the whole image; use 0.01 for 1 % of it")
        if info.data.get("norm") == "Linf" and max(eps) > 1:
            raise ValueError(f"{max(eps):g}: no pixel can change by more than 1; use 8/255 for 8 grey levels")
        return eps


class SurrogateParams(Block):
    """A model of this run whose attacked images a suite's `transfer` uses: `source: <backbone>-<regime>` there."""

    suite: str
    backbone: str
    regime: Literal["clean", "adv"]


class AttacksParams(Block):
    """The suites, their surrogates, and the cost and the consequence of the checklist.

    Attributes:
        suites: by name.
        surrogates: models whose training the cells of a suite wait for, because its `transfer` uses their images.
        on_invalid: what happens to an evaluation that fails its checklist.
        check_images: images that each check may attack.
        check_queries: queries per image of the checks' black-box attack.
    """

    suites: Annotated[Named[SuiteParams], Field(min_length=1)]
    surrogates: list[SurrogateParams]
    on_invalid: Literal["warn", "fail"]
    check_images: Count
    check_queries: Count

    @model_validator(mode="after")
    def _surrogates_match_suites(self) -> "AttacksParams":
        """Each surrogate is a dependency of its suite's cells: it must be listed once, and be used."""
        listed = [(entry.suite, f"{entry.backbone}-{entry.regime}") for entry in self.surrogates]
        used = {
            (name, str(attack.get("source")))
            for name, suite in self.suites.items()
            for attack in suite.attacks
            if attack.get("name") == "transfer" and not attack.get("sha256")
        }
        if missing := sorted(used - set(listed)):
            suite, source = missing[0]
            remedy = "Add {suite, backbone, regime} there for source: <backbone>-<regime>, or set its sha256"
            raise UserError(WHERE, f"no {source!r} for {suite!r}", remedy)
        if unused := [entry for entry in listed if entry not in used or listed.count(entry) > 1]:
            suite, source = unused[0]
            remedy = "List each once, for a suite with {name: transfer, source: <backbone>-<regime>}"
            raise UserError(WHERE, f"{source!r} for {suite!r} is used by no attack, or listed twice", remedy)
        return self
