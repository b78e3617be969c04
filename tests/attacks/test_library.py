"""The torchattacks adapter: what it works around, each shown on the plain library first."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from medrobust.attacks.base import Meter
from medrobust.attacks.methods.library import LibraryCW, LibrarySquare
from tests.attacks.conftest import Victim

Make = Callable[..., Victim]
SEEDS = torch.arange(4)


def test_the_global_random_state_is_left_alone(victim: Make) -> None:
    import torchattacks

    model = victim(4)
    state = torch.get_rng_state()
    with torch.random.fork_rng():
        torchattacks.Square(model, n_queries=3)(model.images, model.labels)
        assert not torch.equal(torch.get_rng_state(), state), "the library starts it anew"
    LibrarySquare(eps=0.1, queries=3)(model, model.images, model.labels, seeds=model.seeds)
    assert torch.equal(torch.get_rng_state(), state)


def test_cw_does_not_depend_on_batch_mates(victim: Make) -> None:
    """The library's stops when the sum of the batch's losses stops falling."""
    import torchattacks

    model = victim(4)
    images, labels = model.images[:6], model.labels[:6]
    settings: dict[str, Any] = {"c": 1.0, "steps": 30, "lr": 0.5}
    plain = torchattacks.CW(model, **settings)
    together, alone = plain(images, labels), torch.cat([plain(images[i, None], labels[i, None]) for i in range(6)])
    assert not torch.allclose(together, alone, atol=1e-4)
    ours = LibraryCW(eps=1.0, **settings)
    together = ours(model, images, labels, seeds=torch.arange(6))
    alone = torch.cat([ours(model, images[i, None], labels[i, None], seeds=SEEDS[:1]) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)
    for parameter in model.parameters():
        parameter.grad = None


def test_square_does_not_depend_on_batch_mates(victim: Make) -> None:
    import torchattacks

    model = victim(4)
    images, labels = model.images[:4], model.labels[:4]
    with torch.random.fork_rng():
        plain = torchattacks.Square(model, eps=0.2, n_queries=30)
        together = plain(images, labels)
        alone = torch.cat([plain(images[i, None], labels[i, None]) for i in range(4)])
    assert not torch.allclose(together, alone, atol=1e-4)
    ours = LibrarySquare(eps=0.2, queries=30)
    together = ours(model, images, labels, seeds=SEEDS)
    alone = torch.cat([ours(model, images[i, None], labels[i, None], seeds=SEEDS[i, None]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_no_gradient_stays_on_the_parameters(victim: Make) -> None:
    import torchattacks

    model = victim(4)
    torchattacks.CW(model, steps=3)(model.images, model.labels)
    assert all(parameter.grad is not None for parameter in model.parameters()), "training would start from these"
    for parameter in model.parameters():
        parameter.grad = None
    LibraryCW(eps=1.0, steps=3)(model, model.images, model.labels, seeds=model.seeds)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_frozen_norm_layer_stays_frozen(build: Any, images: Any) -> None:
    """The library puts the whole tree back into train mode."""
    import torchattacks

    for frozen in (True, False):
        model = build(1, 3)
        model[1].eval()
        if frozen:
            LibrarySquare(eps=0.1, queries=3)(model, images(2), torch.tensor([0, 1]), seeds=SEEDS[:2])
        else:
            with torch.random.fork_rng():
                torchattacks.Square(model, n_queries=3)(images(2), torch.tensor([0, 1]))
        assert model.training
        assert model[1].training is not frozen


def test_cw_can_move_pixels_at_the_ends() -> None:
    """The library's cannot: arctanh is infinite at exact 0 and 1."""
    import torchattacks

    linear = nn.Linear(16, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))
        linear.bias.copy_(torch.tensor([0.2, -0.2]))
    model, black, label = nn.Sequential(nn.Flatten(), linear), torch.zeros(1, 1, 4, 4), torch.tensor([0])
    settings: dict[str, Any] = {"c": 10.0, "steps": 50, "lr": 0.05}
    assert torch.equal(torchattacks.CW(model, **settings)(black, label), black)
    ours = LibraryCW(eps=1.0, **settings)(model, black, label, seeds=SEEDS[:1])
    assert model(ours).argmax(1).item() == 1


def test_each_image_is_charged_for_its_own_queries(victim: Make) -> None:
    model = victim(4)
    meter = Meter(model, 4)
    LibrarySquare(eps=1e-4, queries=10)(meter, model.images[:4], model.labels[:4], seeds=SEEDS)
    assert meter.queries.max() - meter.queries.min() <= 1
    assert 10 <= meter.queries.max() <= 14
