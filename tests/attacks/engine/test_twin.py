"""The twin is the model in bfloat16; BatchNorm is folded only where that changes nothing."""

from typing import Any

import torch
from torch import Tensor, nn

from medrobust.attacks.engine.twin import Twin, _folded
from medrobust.attacks.state import loss_gradient
from medrobust.core.params.training import ModelParams
from medrobust.models.build import build_classifier


def with_statistics(model: nn.Module) -> nn.Module:
    """The model with BatchNorm statistics of its own."""
    model.train()
    for seed in range(3):
        model(torch.rand(8, 1, 12, 10, generator=torch.Generator().manual_seed(seed)) * 2)
    return model.eval()


def test_folding_changes_no_answer_and_no_model(build: Any, images: Any) -> None:
    model, batch = with_statistics(build(1, 4)), images(6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = _folded(model, batch)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert torch.allclose(folded(batch), model(batch), atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Backwards(nn.Module):
    """BatchNorm stands after the convolution in the tree and before it in the computation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Linear(80, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(self.norm(images)).flatten(1))
        return logits


def test_what_cannot_be_folded_is_left(images: Any) -> None:
    model, batch = with_statistics(Backwards()), images(6)
    folded = _folded(model, batch)
    assert isinstance(folded.norm, nn.BatchNorm2d)
    assert torch.equal(folded(batch), model(batch))


def test_gradients_of_the_twin_point_the_same_way(build: Any, images: Any) -> None:
    model, batch = with_statistics(build(1, 4)), images(20)
    labels = model(batch).argmax(1)
    twin = Twin(model, batch)
    assert twin(batch).dtype == torch.float32
    ours, theirs = loss_gradient(model, batch, labels, "ce")[1], loss_gradient(twin, batch, labels, "ce")[1]
    assert (ours.sign() == theirs.sign()).float().mean() > 0.9
    assert next(model.parameters()).requires_grad


def test_a_model_that_resizes_has_a_twin() -> None:
    block = ModelParams(timm="test_resnet.r160_in1k", weights="none", image_size=32)
    model = build_classifier(block, ["a", "b", "c"]).eval()
    batch = torch.rand(4, 1, 24, 20, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Twin(model, batch)(batch), model(batch), atol=0.05)
