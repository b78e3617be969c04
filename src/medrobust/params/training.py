"""Blocks `models`, `augment`, `tune`, `train` and `adv`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from medrobust.params.base import Block, Eps, Share

Positive = Annotated[float, Field(gt=0)]
Optimiser = Literal["SGD", "RMSprop", "Adam"]
Scheduler = Literal["StepLR", "CosineAnnealingLR", "ReduceLROnPlateau"]


class ModelParams(Block):
    """One backbone: a timm architecture, where its weights come from, and what it overrides."""

    timm: str
    weights: str
    image_size: Annotated[int, Field(ge=8)]
    train: dict[str, Any] = Field(default_factory=dict)
    adv: dict[str, Any] = Field(default_factory=dict)


class AugmentParams(Block):
    """Random changes of training images; each happens with probability `p`."""

    p: Share
    horizontal_flip: bool
    vertical_flip: bool
    rotation: Annotated[float, Field(ge=0, le=180)]
    translate: Share
    scale: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    brightness: Share
    contrast: Share
    sharpness: Annotated[float, Field(ge=0)]


class SearchSpace(Block):
    """What Optuna may choose from."""

    lr: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    optimiser: Annotated[list[Optimiser], Field(min_length=1)]
    batch_size: Annotated[list[int], Field(min_length=1)]
    scheduler: Annotated[list[Scheduler], Field(min_length=1)]


class TuneParams(Block):
    """The Optuna study of each backbone."""

    trials: Annotated[int, Field(ge=0)]
    epochs: Annotated[int, Field(ge=1)]
    space: SearchSpace


class TrainParams(Block):
    """Clean training; `lr` to `scheduler` are the study's first trial and what it may replace."""

    epochs: Annotated[int, Field(ge=1)]
    lr: Positive
    optimiser: Optimiser
    batch_size: Annotated[int, Field(ge=2)]
    scheduler: Scheduler
    weight_decay: Annotated[float, Field(ge=0)]
    label_smoothing: Share
    class_weights: Literal["none", "balanced"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]


class AdvParams(Block):
    """Adversarial training, started from the clean model."""

    eps: Eps
    alpha: Literal["auto"] | Eps
    steps: Annotated[int, Field(ge=1)]
    mix: Share
    epochs: Annotated[int, Field(ge=1)]
    lr_scale: Positive
