"""What a training does when the device's memory is too small for it: a message, and room for the next one."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medrobust.core.errors import UserError

#: How torch's libraries and CUDA's runtime say it where torch itself does not raise its own kind of error.
WORDS = ("out of memory", "_ALLOC_FAILED", "can't allocate memory")


class TooLargeError(UserError):
    """The batch does not fit the memory; of a study's trials only those with large batches need fail so."""


@contextmanager
def within_memory(batch_size: int) -> Iterator[None]:
    """Inside, a lack of memory is a user's error that names the batch size.

    Raises:
        TooLargeError: torch, or a library that it calls, could not have the memory that it asked for.
    """
    try:
        yield
    except RuntimeError as error:  # of which torch.OutOfMemoryError is a kind
        if not isinstance(error, torch.OutOfMemoryError) and not any(word in str(error) for word in WORDS):
            raise
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise TooLargeError(
            "train.batch_size", f"batches of {batch_size} images do not fit the device's memory ({first})",
            "Take smaller ones (a study draws from tune.space.batch_size), or precision: bf16 with "
            "adv.attack_precision: train, and see with `nvidia-smi` who else uses the device",
        ) from None  # fmt: skip


def release() -> None:
    """Give back what a training left, once its error is handled; other processes may wait for the memory.

    The error, its frames and so the tensors in them hold each other, until the collector finds them.
    """
    gc.collect()
    torch.cuda.empty_cache()
