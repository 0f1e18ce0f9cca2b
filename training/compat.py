# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Private names of libraries, sorted by library: each in one function that says why nothing public does.

tests/test_compat.py has a canary for each, which names the library whose upgrade broke it. Libraries are imported
inside the functions, because the floor is cheap to import.
"""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch
    from datasets import IterableDataset


# --- datasets


def resolve_features(dataset: "IterableDataset") -> "IterableDataset":
    """The stream with its features, read off the first rows where no metadata say them (WebDataset).

    The public `features` is None for such a stream, and `cast` and `select_columns` need them.
    """
    return dataset._resolve_features()


# --- torch


def empty_shared(shape: tuple[int, ...], dtype: "torch.dtype") -> "torch.Tensor":
    """A tensor in shared memory from the start, as torch's own `default_collate` makes it in a worker.

    The public way, `torch.empty(...).share_memory_()`, allocates twice and copies.
    """
    import math

    import torch

    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)


def stop_loader_workers(batches: Any) -> None:
    """Ends the workers of a DataLoader's iterator now, with SIGKILL where they ignore SIGTERM.

    Publicly they end when the iterator is collected, which an exception's traceback may delay, and those that leave
    signals to their parent would not end then.
    """
    if hasattr(batches, "_workers"):
        batches._shutdown_workers()
        for worker in batches._workers:
            if worker.is_alive():
                worker.kill()
