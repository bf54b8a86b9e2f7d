"""Tokens of an activation for PyTorch's DataLoader: its workers read different chunks of the same file.

    from h5lens.torch import TokenDataset
    data = TokenDataset("out.h5", "resid_post", 4096, layer=5, seed=0)
    for values, row, pos in torch.utils.data.DataLoader(data, batch_size=None, num_workers=4):

In: the path of an output of h5lens, an activation, how many tokens a batch has. Out: batches of tensors. Each worker opens
the file itself (and of a run in shards those that its part is in), so that nothing open is pickled: spawn works as fork does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .datasets import Tokens
from .run import open_run


class TokenDataset(IterableDataset):
    """`Run.batches` as an IterableDataset of `Tokens`: values [token, …], row and pos [token], each a tensor.

    The batches are made here: batch_size=None in the DataLoader. A token comes once in an epoch, whatever the number of
    workers, each of which ends with a batch of fewer tokens (drop_last leaves those out). rank of world_size, for
    training in several processes: each has its own share of the prompts. The order depends on seed, on `set_epoch`,
    which is for before each epoch as of a DistributedSampler, and on the number of workers and processes.
    """

    def __init__(self, path: str | os.PathLike[str], name: str, batch_tokens: int, *, layer: int | str | None = None,
                 shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1, **options: Any) -> None:
        """options: as `Run.batches` has them: layer_type, rows, buffer_bytes, drop_last, dtype (NumPy's)."""
        super().__init__()
        self.path = Path(path).resolve()
        self.name, self.batch_tokens, self.options = name, batch_tokens, {"layer": layer, "shuffle": shuffle, **options}
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live on see it, too
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is from 0 to world_size - 1, not {rank} of {world_size}")
        with open_run(self.path) as run:  # what is wrong is told here and not by a worker
            run.batches(name, batch_tokens, **self.options)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Tokens]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        i, n = self.rank * workers + mine, self.world_size * workers
        with open_run(self.path) as run:
            for batch in run.batches(self.name, self.batch_tokens, seed=[self.seed, int(self._epoch), i], part=(i, n),
                                     **self.options):
                yield Tokens(*(torch.from_numpy(np.asarray(x)) for x in batch))
