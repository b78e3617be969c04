"""params.yaml as one typed object; `load_params` reads and checks the whole file."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from medrobust.core.errors import UserError
from medrobust.core.params.attacks import AttacksParams
from medrobust.core.params.base import Block, Named
from medrobust.core.params.corruptions import CHANNELS, CorruptionsParams
from medrobust.core.params.data import AuditParams, DataParams, SplitParams
from medrobust.core.params.detection import DetectParams
from medrobust.core.params.ensemble import EnsembleParams
from medrobust.core.params.explain import ExplainParams
from medrobust.core.params.external import ExternalParams
from medrobust.core.params.patient import PatientParams
from medrobust.core.params.report import ReportParams
from medrobust.core.params.study import StudyParams
from medrobust.core.params.training import AdvParams, AugmentParams, BackboneParams, TrainParams, TuneParams
from medrobust.core.params.transfer import TransferParams
from medrobust.core.params.yaml_file import read_params

B = TypeVar("B", bound=Block)
#: How the models of a backbone are trained.
REGIMES = ("clean", "adv")


class Params(Block):
    """The whole of params.yaml. Every key is required, except optional ones inside blocks that the user names."""

    # An image's seed has 31 bits, and training adds the number of the epoch to this seed.
    seed: Annotated[int, Field(ge=0, le=2_000_000_000)]
    data: DataParams
    split: SplitParams
    audit: AuditParams
    models: Annotated[Named[BackboneParams], Field(min_length=1)]
    augment: AugmentParams
    tune: TuneParams
    train: TrainParams
    adv: AdvParams
    attacks: AttacksParams
    detect: DetectParams
    ensemble: EnsembleParams
    transfer: TransferParams
    patient: PatientParams
    explain: ExplainParams
    corruptions: CorruptionsParams
    external: ExternalParams
    report: ReportParams
    study: StudyParams

    @model_validator(mode="after")
    def _models_fit(self) -> "Params":
        if taken := [name for name in self.models if name.lower() == "ensemble"]:
            raise UserError(
                f"params.yaml: models.{taken[0]}", "the name is that of the ensemble", "Use another name"
            )
        for name, model in self.models.items():
            override(self.tune, model.tune, f"models.{name}.tune")
            override(self.train, model.train, f"models.{name}.train")
            override(self.adv, model.adv, f"models.{name}.adv")
        self.ensemble.cells(self.models)
        self.detect.cells(self.models)
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> "Params":
        # What these stages draw and measure is defined in a ball.
        balls = [name for name, suite in self.attacks.suites.items() if suite.norm != "patch"]
        for key, names, known in (
            ("attacks.surrogates", [entry.backbone for entry in self.attacks.surrogates], self.models),
            ("detect.suites", self.detect.suites, balls),
            ("detect.ensemble", self.detect.ensemble, [self.ensemble.regime]),
            ("patient.suites", self.patient.suites, balls),
            ("transfer.suite", [self.transfer.suite or None], balls),
            ("explain.suite", [self.explain.suite], balls),
            *(
                (f"external.sets.{name}.{key}", getattr(block, key), known)
                for name, block in self.external.sets.items()
                for key, known in (("suites", self.attacks.suites), ("patient_suites", balls))
            ),
        ):
            for name in names:
                if name is not None and name not in known:
                    patch = known is balls and name in self.attacks.suites
                    found = f"the suite {name!r} attacks with patches" if patch else f"there is no {name!r}"
                    raise UserError(f"params.yaml: {key}", found, f"Known: {', '.join(known) or 'none'}")
        return self

    @model_validator(mode="after")
    def _external_classes_exist(self) -> "Params":
        for name, block in self.external.sets.items():
            for label, mapped in block.classes.items():
                if mapped is not None and mapped not in self.data.classes:
                    found = f"{label!r} is mapped to {mapped!r}, which is not in data.classes"
                    remedy = (
                        f"Map it to one of {', '.join(self.data.classes)}, or to null (or set external.sets: {{}})"
                    )
                    raise UserError(f"params.yaml: external.sets.{name}.classes", found, remedy)
        return self

    @model_validator(mode="after")
    def _explanations_have_a_radius(self) -> "Params":
        explained = [name for name, model in self.models.items() if model.explain]
        if explained and not self.explain.eps:
            remedy = f"Set a radius above 0, or models.{explained[0]}.explain: false"
            raise UserError("params.yaml: explain.eps", f"0, but {explained[0]} is explained", remedy)
        return self

    @model_validator(mode="after")
    def _corruptions_fit(self) -> "Params":
        known = [f"{name}-{regime}" for name, model in self.models.items() if model.corrupt for regime in REGIMES]
        if known and self.corruptions.baseline not in known:
            found = f"there are no corrupted images for {self.corruptions.baseline!r}"
            raise UserError("params.yaml: corruptions.baseline", found, f"Use one of: {', '.join(known)}")
        modality, channels = self.corruptions.modality, self.data.channels
        if known and CHANNELS[modality] != channels:
            fitting = [name for name, count in CHANNELS.items() if count == channels]
            found = f"{modality} images have {CHANNELS[modality]} channels, but data.channels is {channels}"
            raise UserError("params.yaml: corruptions.modality", found, f"Use {' or '.join(fitting)}")
        linf = [name for name, suite in self.attacks.suites.items() if suite.norm == "Linf"]
        if known and self.corruptions.suite is not None and self.corruptions.suite not in linf:
            found = f"there is no suite {self.corruptions.suite!r} with the norm Linf"
            raise UserError("params.yaml: corruptions.suite", found, f"Known: {', '.join(linf) or 'none'}")
        return self


def override(block: B, changes: dict[str, Any], where: str) -> B:
    """Return `block` with changed values, such as a backbone's own (`models.<name>.train`, ...).

    Raises:
        UserError: a key that the block does not have, or a value that it does not accept.
    """
    try:
        return type(block).model_validate({**block.model_dump(), **changes})
    except ValidationError as error:
        raise _explain(error, type(block), f"params.yaml: {where}") from None


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check the whole of params.yaml.

    Every stage checks every block, so that an error in the last stage's block is not found after hours of
    training; `tests/test_pipeline.py` proves that a stage uses only the blocks that dvc.yaml lists for it.

    Raises:
        UserError: the file is missing, is not valid YAML, or has a wrong, missing or unknown key.
    """
    return check_params(read_params(path), Path(path).name)


def check_params(content: dict[str, Any], where: str) -> Params:
    """The typed object of plain values, as `read_params` returns them from the file `where`.

    Raises:
        UserError: a wrong, missing or unknown key.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise _explain(error, Params, where) from None


def _explain(error: ValidationError, schema: type[BaseModel], where: str) -> UserError:
    """Turn the first of pydantic's findings into a UserError: dotted key, value, what is allowed."""
    # A misspelt key gives two errors, `missing` and `unknown`; the second shows the spelling.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    where = f"{where}{'.' if ': ' in where else ': '}{key}" if key else where
    count = error.error_count() - 1
    others = f" (and {count} more {'errors' if count > 1 else 'error'})" if count else ""
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(schema, first["loc"][:-1])
        close = get_close_matches(str(first["loc"][-1]), allowed, 1)
        hint = f"Did you mean {close[0]}? " if close else ""
        return UserError(where, f"unknown key{others}", f"{hint}Known here: {', '.join(allowed)}")
    if first["type"] == "missing":
        return UserError(where, f"missing{others}", "Set it; presets/default.yaml has every key")
    reason = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):  # a rule for a whole block: its values would be long and hide the reason
        return UserError(where, f"{reason}{others}", "Change one of its values")
    return UserError(where, f"got {first['input']!r}{others}", reason)


def _fields_at(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the block at `location` inside `schema`."""
    for part in location:
        field = schema.model_fields.get(str(part))
        if field is None:  # a name that the user chose inside a mapping of blocks (a backbone, a suite)
            continue
        blocks = [t for t in _flatten(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        if blocks:
            schema = blocks[0]
    return list(schema.model_fields)


def _flatten(annotation: Any) -> list[Any]:
    """The annotation and all its type arguments, outermost first."""
    return [annotation, *(inner for argument in get_args(annotation) for inner in _flatten(argument))]
