"""params.yaml as one typed object, and the only way to read it."""

from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from medrobust.core.errors import UserError
from medrobust.core.params.attacks import AttacksParams
from medrobust.core.params.base import Block
from medrobust.core.params.data import AuditParams, DataParams, SplitParams
from medrobust.core.params.detection import DetectParams
from medrobust.core.params.ensemble import EnsembleParams
from medrobust.core.params.explain import ExplainParams
from medrobust.core.params.report import ReportParams
from medrobust.core.params.training import AdvParams, AugmentParams, ModelParams, TrainParams, TuneParams
from medrobust.core.params.transfer import TransferParams

#: Names become parts of file and stage names (`attack@B-R-S`), so they carry no separator.
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Params(Block):
    """The whole of params.yaml."""

    # An image's seed has 31 bits of it, to which training adds the number of the epoch.
    seed: Annotated[int, Field(ge=0, le=2_000_000_000)]
    data: DataParams
    split: SplitParams
    audit: AuditParams
    models: Annotated[dict[Name, ModelParams], Field(min_length=1)]
    augment: AugmentParams
    tune: TuneParams
    train: TrainParams
    adv: AdvParams
    attacks: AttacksParams
    detect: DetectParams = Field(default_factory=DetectParams)
    ensemble: EnsembleParams
    transfer: TransferParams = Field(default_factory=TransferParams)
    explain: ExplainParams = Field(default_factory=ExplainParams)
    report: ReportParams

    @model_validator(mode="after")
    def _overrides_fit(self) -> "Params":
        for name, model in self.models.items():
            override(self.train, model.train, f"models.{name}.train")
            override(self.adv, model.adv, f"models.{name}.adv")
        return self

    @model_validator(mode="after")
    def _members_exist(self) -> "Params":
        self.ensemble.cells(self.models)
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> "Params":
        for key, names, known in (
            ("attacks.surrogates", [entry.backbone for entry in self.attacks.surrogates], self.models),
            ("detect.models", self.detect.models, self.models),
            ("detect.suites", self.detect.suites, self.attacks.suites),
            ("detect.ensemble", self.detect.ensemble, [self.ensemble.regime]),
            ("explain.models", self.explain.models, self.models),
            ("explain.suite", [self.explain.suite] if self.explain.suite else [], self.attacks.suites),
        ):
            if unknown := [name for name in names if name not in known]:
                where, remedy = f"params.yaml: {key}", f"Known: {', '.join(known)}"
                raise UserError(where, f"there is no {unknown[0]!r}", remedy)
        return self

    @model_validator(mode="after")
    def _transfer_suite_exists(self) -> "Params":
        suites, name = self.attacks.suites, self.transfer.suite
        if name and name not in suites:
            raise UserError("params.yaml: transfer.suite", f"there is no {name!r}", f"Known: {', '.join(suites)}")
        return self


B = TypeVar("B", bound=Block)


def override(block: B, changes: dict[str, Any], where: str) -> B:
    """Return `block` with a backbone's own values (`models.<name>.train` or `.adv`) in place.

    Raises:
        UserError: a key that the block does not have, or a value that it does not take.
    """
    try:
        return type(block).model_validate({**block.model_dump(), **changes})
    except ValidationError as error:
        raise _explain(error, type(block), f"params.yaml: {where}") from None


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check the whole of params.yaml.

    Every stage checks every block, so that a slip in the last stage's block is not found after hours of
    training; `tests/test_pipeline.py` proves that a stage uses only the blocks that dvc.yaml lists for it.

    Raises:
        UserError: the file is missing, no YAML, or has a wrong, missing or unknown key.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(
            str(path), "no such file", "Run from the repository's root, or copy one of presets/"
        ) from None
    except yaml.YAMLError as error:
        raise UserError(str(path), f"not valid YAML ({error})", "Mend the line that it names") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise _explain(error, Params, path.name) from None


def _explain(error: ValidationError, schema: type[BaseModel], where: str) -> UserError:
    """Turn the first of pydantic's findings into the house's error: dotted key, value, what is allowed."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    others = f" ({error.error_count() - 1} more keys are wrong)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(schema, first["loc"][:-1]))
        return UserError(f"{where}: {key}", f"unknown key{others}", f"Known here: {allowed}")
    if first["type"] == "missing":
        return UserError(f"{where}: {key}", f"missing{others}", "Add it, as in the committed params.yaml")
    reason = first["msg"].removeprefix("Value error, ")
    return UserError(f"{where}: {key}", f"got {first['input']!r}{others}", reason)


def _fields_at(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the block that `location` leads to inside `schema`."""
    for part in location:
        field = schema.model_fields.get(str(part))
        if field is None:  # a name of the user's own inside a dict of blocks (a backbone, a suite)
            continue
        blocks = [t for t in _flatten(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        if blocks:
            schema = blocks[0]
    return list(schema.model_fields)


def _flatten(annotation: Any) -> list[Any]:
    """The annotation and all its type arguments, outermost first."""
    return [annotation, *(inner for argument in get_args(annotation) for inner in _flatten(argument))]
