"""What a training stage of one backbone depends on, as the stage `settings` hands it over.

A file holds what decides its stage's training and nothing else: params with the backbone's overrides in place,
and where its objectives are, with the hash of their source files. So an edit of one objective re-runs the
trainings that name it, a new objective re-runs none, and an override of `adv` leaves tuning and clean training as
they are.
"""

from pathlib import Path

from medrobust.params.base import Block
from medrobust.params.schema import override
from medrobust.params.training import AdvParams, ModelParams, TrainParams, TuneParams
from medrobust.records import read_json

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
    """

    target: str
    attacks: bool = True
    single_step: bool = False
    replayed: bool = False


class Settings(Block):
    """What decides a training beside images and seed.

    Attributes:
        backbone: the name of its block in params.yaml.
        model: the block, without the overrides.
        train: clean training, overrides in place; the study may replace some of it.
        objective: of clean training.
        adv, adv_objective: adversarial training, overrides in place; None where the stage has none.
        tune: the study; None where the stage has none.
        sources: sha256 of the source files of the objectives.
    """

    backbone: str
    model: ModelParams
    train: TrainParams
    objective: Entry
    adv: AdvParams | None = None
    adv_objective: Entry | None = None
    tune: TuneParams | None = None
    sources: str


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


def read_settings(path: Path) -> Settings:
    """Read one of the files that the stage `settings` wrote."""
    return Settings.model_validate(read_json(path))
