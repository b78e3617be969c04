"""What a training stage of one backbone depends on, as the stage `settings` hands it over.

A file holds what decides its stage's training and nothing else: params with the backbone's overrides in place,
and where its objectives are, with the hash of their code. So an edit of one objective re-runs the
trainings that name it, a new objective re-runs none, and an override of `adv` leaves tuning and clean training as
they are.
"""

import hashlib
from pathlib import Path

from pydantic import Field

from medrobust.core.errors import UserError
from medrobust.core.params.base import Block
from medrobust.core.params.schema import override
from medrobust.core.params.training import AdvParams, ModelParams, TrainParams, TuneParams
from medrobust.core.records import file_hash, read_json

#: Gradients that a single-step training is validated with, unless `adv.val_steps` says otherwise.
VALIDATION_STEPS = 10


class Entry(Block):
    """An objective as the registry knows it.

    Attributes:
        target: module:function.
        attacks: whether it attacks the model, so that only adversarial training can use it.
        single_step: whether its attack is one gradient: validated under more steps, and watched for catastrophic
            overfitting.
        replayed: whether it takes each batch `adv.replays` times.
        inside: whether its attack goes by `adv.alpha` and has to reach the border of the ball; a single step
            in that step.
        smooths: whether `train.label_smoothing` means something to it.
        classes: how many it needs at least.
    """

    target: str
    attacks: bool = True
    single_step: bool = False
    replayed: bool = False
    inside: bool = True
    smooths: bool = True
    classes: int = 2


class Settings(Block):
    """What decides a training beside images and seed.

    Attributes:
        backbone: the name of its block in params.yaml.
        model: the block, without the overrides.
        train: clean training, overrides in place; the study may replace some of it.
        objective: of clean training.
        adv, adv_objective: adversarial training, overrides in place; None where the stage has none.
        tune: the study; None where the stage has none.
        code: `objectives/<name>` -> hash of the objective's code.
        files: path as params.yaml has it -> `content_hash`, of files that are no outs: weights, unlabelled images.
    """

    backbone: str
    model: ModelParams
    train: TrainParams
    objective: Entry
    adv: AdvParams | None = None
    adv_objective: Entry | None = None
    tune: TuneParams | None = None
    code: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)


def validation_steps(adv: AdvParams, single_step: bool) -> int:
    """Gradients of the PGD of robust validation.

    A model of single-step training can be safe from few steps and from nothing else, so it meets at least
    `VALIDATION_STEPS` of them unless `adv.val_steps` says otherwise.
    """
    return adv.val_steps or (max(adv.steps, VALIDATION_STEPS) if single_step else adv.steps)


def tuned(train: TrainParams, best: Path) -> TrainParams:
    """A `train` block with a study's best values, its `best.json`, in place."""
    chosen = {key: value for key, value in read_json(best).items() if key in TrainParams.model_fields}
    return override(train, chosen, f"train (from {best})")


def content_hash(path: str | Path) -> str:
    """sha256 of a file, or of the names and contents of all files below a folder; `~` is the home."""
    path = Path(path).expanduser()
    if path.is_file():
        return file_hash(path)
    below = sorted(file for file in path.rglob("*") if file.is_file())
    listing = [f"{file.relative_to(path).as_posix()} {file_hash(file)}" for file in below]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def read_settings(path: Path) -> Settings:
    """Read one of the files that the stage `settings` wrote.

    Raises:
        UserError: a file that it speaks of is not what it was then.
    """
    settings = Settings.model_validate(read_json(path))
    for name, expected in settings.files.items():
        if content_hash(name) != expected:
            remedy = "Run `dvc repro --force --single-item settings`, then `dvc repro`"
            raise UserError(name, f"changed since {path} was written", remedy)
    return settings
