"""Bayesian uncertainty from dropout samples (Feinman et al. 2017, section 4.2; Gal & Ghahramani 2016)."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from medrobust.core.errors import UserError
from medrobust.core.seeds import uniform
from medrobust.detection.base import Detector
from medrobust.detection.features import Features, heads_of
from medrobust.models.feature_maps import recorded

#: Random streams reserved per sample: one per dropout layer, or per member of an ensemble.
LAYERS = 4096


@dataclass(kw_only=True)
class DropoutUncertainty(Detector):
    """Variance of the predicted probabilities over dropout samples, summed over classes.

    With `rate` 0, the model's own dropout layers are used (an error if none of them drops anything). Above 0, this
    share of the penultimate features is dropped instead, even if the model was not trained with dropout.
    """

    samples: Annotated[int, Field(ge=2)] = 10
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def extractor(self) -> "DropoutSamples":
        return DropoutSamples(self.samples, self.rate)

    def learn(self, features: Features, labels: Tensor, attacked: Features | None, seed: int) -> dict[str, Tensor]:
        return {}

    def suspicion(self, features: Features) -> Tensor:
        assert features.samples is not None
        return features.samples.double().var(1, unbiased=False).sum(1)


@dataclass(frozen=True)
class DropoutSamples:
    """Probabilities of `samples` passes with dropout on; masks depend on the images' seeds alone."""

    samples: int
    rate: float

    def __call__(self, model: nn.Module, images: Tensor, seeds: Tensor) -> Features:
        if self.rate > 0:
            return self._head_samples(model, images, seeds)
        layers = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
        if not layers:
            remedy = "Set detect.detectors.dropout.rate above 0, which drops penultimate features"
            raise UserError("dropout", f"{type(model).__name__} has no dropout layer with a rate above 0", remedy)
        samples = []
        for sample in range(self.samples):
            handles = [
                layer.register_forward_hook(_mask(seeds, sample * LAYERS + number))
                for number, layer in enumerate(layers)
            ]
            try:
                samples.append(model(images).softmax(1))
            finally:
                for handle in handles:
                    handle.remove()
        return Features((), model(images), torch.stack(samples, 1))

    def _head_samples(self, model: nn.Module, images: Tensor, seeds: Tensor) -> Features:
        """One full pass, then only the heads run again; an ensemble combines its members by its own method."""
        heads = heads_of(model)
        combine = getattr(model, "combiner", lambda members: members[0])
        with recorded(heads) as seen:
            logits = model(images)
        samples = []
        for sample in range(self.samples):
            members = [
                head(_dropped(penultimate, self.rate, seeds, sample * LAYERS + number)).float().log_softmax(1)
                for number, (head, (penultimate, _)) in enumerate(zip(heads, seen, strict=True))
            ]
            samples.append(combine(torch.stack(members)).exp())
        return Features((), logits, torch.stack(samples, 1))


def _mask(seeds: Tensor, stream: int) -> Any:
    def hook(module: nn.Dropout, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return _dropped(output, module.p, seeds, stream)

    return hook


def _dropped(values: Tensor, rate: float, seeds: Tensor, stream: int) -> Tensor:
    keep = uniform(seeds, stream, tuple(values.shape[1:])) >= rate
    return values * keep.to(values.dtype) / (1 - rate)
