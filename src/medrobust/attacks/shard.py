"""Several processes, one evaluation: each attacks its share of the images, and all get the whole table.

torchrun starts the processes (see `runtime.run_stage`); without it there is one. Only the results
are exchanged, so gloo does on every device, and a process that is slower delays nothing but the end.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch.distributed as dist


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes that torchrun started know each other; a group that exists already is used."""
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def share(count: int) -> np.ndarray:
    """This process's positions of `count`: every world-th one."""
    if not dist.is_initialized():
        return np.arange(count)
    return np.arange(dist.get_rank(), count, dist.get_world_size())


def gather(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Each process's table, in the order of ranks, everywhere."""
    if not dist.is_initialized():
        return [table]
    found: list[pd.DataFrame] = [table] * dist.get_world_size()
    dist.all_gather_object(found, table)
    return found
