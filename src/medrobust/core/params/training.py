"""Blocks `models`, `augment`, `tune`, `train` and `adv`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from medrobust.core.params.base import (
    Block,
    Count,
    Eps,
    Natural,
    NotNegative,
    Positive,
    Range,
    Share,
    parse_fraction,
)

#: Images per batch; BatchNorm has no variance of one image.
BatchSize = Annotated[int, Field(ge=2)]
#: Value of `adv.unlabelled` for the images that `split.counts.unlabelled` draws.
UNLABELLED_SPLIT = "split"
Optimiser = Literal["SGD", "RMSprop", "Adam"]
#: Decay of an exponential moving average; 0 = none.
Decay = Annotated[float, Field(ge=0, lt=1)]
#: A random change of training images that has a probability of its own.
Change = Literal[
    "horizontal_flip", "vertical_flip", "affine", "brightness", "contrast", "gamma", "sharpness",
]  # fmt: skip
Scheduler = Literal["StepLR", "CosineAnnealingLR", "ReduceLROnPlateau"]


def _step_size(value: Any) -> Any:
    """A step in [0, 1] pixel units (0.01 or 2/255), or auto."""
    step = value if value == "auto" else parse_fraction(value)
    if step != "auto" and not (isinstance(step, int | float) and 0 < step <= 1):
        raise ValueError("Use auto, or a step above 0 and at most 1, such as 2/255")
    return step


class HeadParams(Block):
    """The classifier on top of the backbone: linear, or an MLP with hidden layers of these widths."""

    widths: list[Count] = Field(default_factory=list)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ModelParams(Block):
    """One network: a timm architecture, the source of its weights, what is trained, and its own training values.

    `normalise: false` gives the images in [0, 1] to the network, without the mean and deviation of its weights.
    """

    timm: str
    weights: str
    image_size: Annotated[int, Field(ge=8)]
    trainable: Annotated[str, Field(pattern=r"^(all|head|last:[1-9][0-9]*)$")] = "all"
    normalise: bool = True
    head: HeadParams = HeadParams()
    tune: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    adv: dict[str, Any] = Field(default_factory=dict)


class BackboneParams(ModelParams):
    """One block of `models`: a network, and the stages that its two models go through besides.

    Attributes:
        detect: regimes of the models that get detectors.
        explain: whether its models are explained.
        corrupt: whether its models are evaluated on corrupted images.
    """

    detect: list[Literal["clean", "adv"]] = Field(default_factory=list)
    explain: bool = False
    corrupt: bool = False

    def switches(self) -> dict[str, dict[str, Any]]:
        """Stage -> content of the file that switches its cells of this backbone on or off."""
        return {
            "detect": {"regimes": self.detect}, "explain": {"explain": self.explain},
            "corrupt": {"corrupt": self.corrupt},
        }  # fmt: skip


class AugmentParams(Block):
    """Random changes of training images; each happens with probability `p`, flips with 0.5 if `p` is above 0.

    `probabilities` sets the probability of single changes. `gamma` is the range of the exponent of grey values.
    """

    p: Share
    probabilities: dict[Change, Share]
    horizontal_flip: bool
    vertical_flip: bool
    rotation: Annotated[float, Field(ge=0, le=180)]
    translate: Share
    scale: Range
    brightness: Share
    contrast: Share
    gamma: Range
    sharpness: NotNegative


class SearchSpace(Block):
    """The values that Optuna may choose."""

    lr: Range
    optimiser: Annotated[list[Optimiser], Field(min_length=1)]
    batch_size: Annotated[list[BatchSize], Field(min_length=1)]
    scheduler: Annotated[list[Scheduler], Field(min_length=1)]


class TuneParams(Block):
    """The Optuna study of each backbone.

    A trial trains on at most `batches` batches per epoch, and is validated on at most `val_batches`; None = all.
    """

    trials: Natural
    epochs: Count
    batches: Count | None
    val_batches: Count | None
    objective: Literal["clean", "robust"]
    space: SearchSpace


class TrainParams(Block):
    """Clean training; `lr` to `scheduler` are the first trial of the study, whose best trial replaces them."""

    epochs: Count
    lr: Positive
    optimiser: Optimiser
    batch_size: BatchSize
    scheduler: Scheduler
    weight_decay: NotNegative
    label_smoothing: Share
    class_weights: Literal["none", "balanced"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    objective: str
    gce_alpha: Annotated[float, BeforeValidator(parse_fraction), Field(gt=0)]
    sampling: Literal["shuffle", "balanced"]
    ema: Decay
    keep: Literal["best", "last"]
    channels_last: bool


class AdvParams(Block):
    """Adversarial training, started from the clean model.

    `objective` is a name in the registry of objectives; the docstring of each objective lists the other keys that
    it reads.
    """

    eps: Annotated[Eps, Field(gt=0)]
    eps_min: Eps | None
    alpha: Annotated[Literal["auto"] | float, BeforeValidator(_step_size)]
    allow_weak: bool
    steps: Count
    random_start: bool
    mix: Share
    epochs: Count
    lr_scale: Positive
    objective: str
    beta: NotNegative
    noise: NotNegative
    replays: Count
    ramp: Share
    awp: NotNegative
    ema: Decay
    unlabelled: Annotated[float, Field(ge=0, lt=1)] | str  # a share, a folder, or `UNLABELLED_SPLIT`
    batch_norm: Literal["eval", "batch"]
    attack_precision: Literal["fp32", "train"]
    val_steps: Count | None

    @model_validator(mode="after")
    def _radii_rise(self) -> "AdvParams":
        if self.eps_min is not None and self.eps_min > self.eps:
            raise ValueError(f"adv.eps_min {self.eps_min:g} is above adv.eps {self.eps:g}")
        return self
