"""The view of the model that the training attack sees."""

import pytest
import torch
from torch import Tensor

from medrobust.attacks.base import frozen, input_gradient
from medrobust.training.objectives.base import Step
from medrobust.training.objectives.inner import attack_view
from tests.training.conftest import adv, network, settings


@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
def test_gradients_too_small_for_float16_are_scaled(batch_norm: str) -> None:
    """An image that is classified with confidence has gradients below 6e-8, which float16 rounds to 0."""
    torch.manual_seed(0)
    images, labels = torch.rand(6, 1, 16, 16), torch.arange(6) % 2
    sizes = torch.tensor([1.0, 1e-8, 1.0, 1e-12, 1.0, 0.0]) if batch_norm == "eval" else torch.full((6,), 1e-9)

    ce = torch.nn.CrossEntropyLoss(reduction="none")

    def gradients(kind: str) -> Tensor:
        block = adv(attack_precision="train" if kind == "fp16" else "fp32", batch_norm=batch_norm)
        step = Step(network().train(), images, labels, torch.arange(6), settings(precision=kind), block)
        with torch.autocast("cpu", torch.float16, enabled=kind == "fp16"):
            view = attack_view(step)
            with frozen(view):
                return input_gradient(view, images, lambda logits, _: sizes * ce(logits, labels))[2]

    found, expected = gradients("fp16"), gradients("fp32")
    for one, other, size in zip(found, expected, sizes, strict=True):
        assert torch.isfinite(one).all()
        assert float((one - other).norm()) <= 0.1 * float(other.norm()), size
