"""RayS finds the smallest radius of a linear model, and sees only predictions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.base import QueryCounter
from medrobust.attacks.methods.rays import RayS
from tests.attacks.conftest import AttackedModel


class OneHot(nn.Module):
    """The predicted class of a model, as logits 0 and 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(images)


def linear(norm: str) -> tuple[nn.Module, Tensor, float]:
    """A model of two classes on 16 pixels, two grey images, and the exact radius of their boundary in a norm."""
    weight = torch.tensor([1.0, -1, 1, 1, -1, -1, 1, -1, 1, 1, 1, 1, -1, 1, -1, 1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-weight, weight]))
        layer.bias.copy_(torch.tensor([1.0, -1.0]) - layer.weight @ torch.full((16,), 0.5))
    return model.eval(), torch.full((2, 1, 4, 4), 0.5), 1 / 16 if norm == "Linf" else 1 / 4


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_radius_of_a_linear_model_is_found(norm: str) -> None:
    """The boundary is 1 / |weight| away in the dual norm; the best direction is one of ±1 per pixel."""
    model, images, radius = linear(norm)
    labels, seeds = torch.zeros(2, dtype=torch.int64), torch.arange(2)
    for share, fooled in ((1.02, True), (0.98, False)):
        attack = RayS(eps=share * radius, norm=norm, queries=2000, halvings=10)  # type: ignore[arg-type]
        adv = attack(model, images, labels, seeds=seeds)
        assert (model(adv).argmax(1) == 1).tolist() == [fooled, fooled]
        assert not fooled or not torch.equal(adv, images)


def test_scores_are_not_used(attacked_model: Callable[..., AttackedModel]) -> None:
    model = attacked_model(4)
    attack = RayS(eps=0.15, queries=200)
    one, two = (
        attack(network, model.images, model.labels, seeds=model.seeds) for network in (model, OneHot(model).eval())
    )
    assert torch.equal(one, two)
    assert (model(one).argmax(1) != model.labels).float().mean() > 0.5


@pytest.mark.parametrize("queries", [9, 10, 50])
def test_no_image_gets_more_queries_than_allowed(
    queries: int, attacked_model: Callable[..., AttackedModel]
) -> None:
    model = attacked_model(3)
    counter = QueryCounter(model, len(model.images))
    RayS(eps=0.001, queries=queries)(counter, model.images, model.labels, seeds=model.seeds)
    assert counter.queries.max() <= queries
    assert counter.queries.min() >= 1
    assert counter.gradients.max() == 0
