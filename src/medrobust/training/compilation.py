"""Training on a network that torch.compile has turned into fused kernels (`train.compile`).

The compiled network is a view: it shares parameters, buffers and modes with the plain one, which alone is
validated, averaged, kept and written, so that no file knows of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from medrobust.core.errors import UserError

#: How to compile. Dropout draws what it draws without compilation, so that both ways differ by rounding alone.
OPTIONS: dict[str, Any] = {"backend": "inductor", "options": {"fallback_random": True}}


def compiled(model: nn.Module) -> nn.Module:
    """The model as torch.compile runs it; nothing is compiled before the first pass.

    Each use that a training makes of its network has a graph of its own: in train mode by its weights, frozen in
    eval mode by the pixels, with BatchNorm left untracked, without a gradient. Each is specialised to the one size
    of a full batch. These are at most a handful; what earlier trainings of this process compiled is dropped, so
    that a study's trials do not add up to torch's limit of graphs. A graph too many, and code that does not fit
    into one graph, are errors, since torch would go on without compilation and say so in a log at most.
    """
    torch.compiler.reset()
    return cast(nn.Module, torch.compile(model, fullgraph=True, dynamic=False, **OPTIONS))


@contextmanager
def compiling() -> Iterator[None]:
    """Where compiled networks are used: what stops torch.compile becomes the user's error.

    Raises:
        UserError: no compiler on this machine, a GPU too old for Triton, or a network that is more than one graph.
    """
    try:
        yield
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        # The limit's own words are in what it was raised from.
        detail = error.__cause__ if isinstance(error, FailOnRecompileLimitHit) else error
        reason = " ".join(str(detail).split())[:300]
        remedy = (
            "Install a C++ compiler (g++, or the one that the variable CXX names; a GPU needs gcc and Triton), "
            "or set train.compile: false, for one backbone under models.<name>.train"
        )
        found = f"true, but torch cannot compile this network here ({reason})"
        raise UserError("params.yaml: train.compile", found, remedy) from error
