"""The settings of one backbone's training stages, as the stage `settings` writes them.

A file holds what decides the training of its stage and nothing else: an edit re-runs only what it affects.
"""

from pathlib import Path

from pydantic import Field

from medrobust.core.content import content_hash
from medrobust.core.errors import UserError
from medrobust.core.params.base import Block
from medrobust.core.params.schema import override
from medrobust.core.params.training import AdvParams, ModelParams, TrainParams, TuneParams
from medrobust.core.records import read_json

#: Least number of PGD steps that validate a single-step training, unless `adv.val_steps` is set.
VALIDATION_STEPS = 10


class ObjectiveEntry(Block):
    """An objective in the registry.

    The attack of a `single_step` objective takes one gradient. Such a training is validated with more steps and
    watched for catastrophic overfitting.
    """

    target: str  # module:function
    attacks: bool = True  # whether it attacks the model, so that only adversarial training can use it
    single_step: bool = False
    replays: bool = False  # whether it takes each batch `adv.replays` times
    must_reach_eps: bool = True  # whether steps of `adv.alpha` (one, if `single_step`) must be able to reach eps
    draws_attack: bool = False  # whether its attack reads `adv.eps_min` and `adv.random_start`
    uses_label_smoothing: bool = True  # whether `train.label_smoothing` affects it
    min_classes: int = 2


class TrainingSettings(Block):
    """What decides a training besides images and seed.

    `train` and `adv` have the backbone's overrides applied. `adv`, `adv_objective` and `tune` are None if the
    stage does not use them. `files` holds the `content_hash` of inputs that are no DVC outs (weights, unlabelled
    images), by path as in params.yaml.
    """

    backbone: str  # name of its block in params.yaml
    model: ModelParams  # the block, without the overrides
    train: TrainParams  # clean training; the study may replace some of its values
    objective: ObjectiveEntry  # of clean training
    adv: AdvParams | None = None
    adv_objective: ObjectiveEntry | None = None
    tune: TuneParams | None = None
    code: dict[str, str] = Field(default_factory=dict)  # `objectives/<name>` -> hash of its code
    files: dict[str, str] = Field(default_factory=dict)


def validation_steps(adv: AdvParams, single_step: bool) -> int:
    """Number of steps of the PGD of robust validation: `adv.val_steps` if set, more for single-step training."""
    return adv.val_steps or (max(adv.steps, VALIDATION_STEPS) if single_step else adv.steps)


def with_tuned_values(train: TrainParams, best: Path) -> TrainParams:
    """A `train` block with the best values of a study, read from its `best.json`."""
    tuned = {key: value for key, value in read_json(best).items() if key in TrainParams.model_fields}
    return override(train, tuned, f"train (from {best})")


def read_settings(path: Path) -> TrainingSettings:
    """Read a file that the stage `settings` wrote.

    Raises:
        UserError: a file or folder that it lists has changed since.
    """
    settings = TrainingSettings.model_validate(read_json(path))
    for name, expected in settings.files.items():
        if content_hash(name) != expected:
            remedy = "Run `dvc repro --force --single-item settings`, then `dvc repro`"
            raise UserError(name, f"changed since {path} was written", remedy)
    return settings
