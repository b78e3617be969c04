"""The largest number of images that one pass can hold."""

from collections.abc import Callable
from typing import TypeVar

import torch

from medrobust.core.errors import UserError
from medrobust.core.runtime import say

T = TypeVar("T")


class BatchLimit:
    """Largest number of images per pass; halves with a message when the GPU is out of memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def split(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """Results of `work` on slices of `count` images that fit into memory; a UserError if no image fits."""
        results: list[T] = []
        start = 0
        while start < count:
            part = slice(start, min(start + self.size, count))
            try:
                results.append(work(part))
            except torch.OutOfMemoryError:
                full = True
            else:
                start, full = part.stop, False
            if full:  # outside of the handler, whose traceback keeps the tensors alive
                self._halve(part.stop - part.start)
        return results

    def _halve(self, count: int) -> None:
        if count == 1:
            remedy = "Use a smaller model or image_size, or set MEDROBUST_DEVICE=cpu"
            raise UserError("GPU memory", "not even one image fits", remedy)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.size = count // 2
        say(f"out of GPU memory with {count} images per batch: continuing with {self.size}")
