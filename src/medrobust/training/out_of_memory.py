"""Out-of-memory errors of a training: a clear message, and memory freed for the next training."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medrobust.core.errors import UserError

#: Parts of the messages of torch's libraries and the CUDA runtime, which do not raise torch.OutOfMemoryError.
OUT_OF_MEMORY_MESSAGES = ("out of memory", "_ALLOC_FAILED", "can't allocate memory")


class BatchTooLargeError(UserError):
    """The batch does not fit into memory; in a study only the trials with large batches need to fail."""


@contextmanager
def explain_out_of_memory(batch_size: int) -> Iterator[None]:
    """Turn out-of-memory errors into a UserError that names the batch size.

    Raises:
        BatchTooLargeError: torch, or a library that it calls, could not allocate memory.
    """
    try:
        yield
    except RuntimeError as error:  # the base class of torch.OutOfMemoryError
        out_of_memory = any(part in str(error) for part in OUT_OF_MEMORY_MESSAGES)
        if not isinstance(error, torch.OutOfMemoryError) and not out_of_memory:
            raise
        first_line = str(error).strip().splitlines()[0].rstrip(".")
        raise BatchTooLargeError(
            "train.batch_size", f"batches of {batch_size} images do not fit the device's memory ({first_line})",
            "Use smaller ones (a study draws from tune.space.batch_size), or precision: bf16 with "
            "adv.attack_precision: train, and check with `nvidia-smi` who else uses the device",
        ) from None  # fmt: skip


def free_memory() -> None:
    """Free the memory of a failed training once its error, whose frames hold tensors, is handled."""
    gc.collect()
    torch.cuda.empty_cache()
