# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The processes that evaluate together, started by accelerate or torchrun, on GPUs or not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object


def processes() -> PartialState:
    """Rank, number and device of this process.

    Without an accelerator Accelerate has to be told so: it would otherwise take torchrun's processes for single ones,
    and each would do all the work.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def from_all(item: Any) -> list[Any]:
    """The item of each process, on every one; they wait for each other."""
    processes()  # first: Accelerate would ask for a GPU
    return gather_object([item])


@contextmanager
def together() -> Iterator[None]:
    """Where one process fails inside, all fail at its end: none goes on to wait for one that never comes.

    Nothing inside may wait for other processes.

    Raises:
        ValueError: another process failed with a ValueError, an OSError or an ImportError.
        RuntimeError: another process failed with anything else.
    """
    failed = None
    try:
        yield
    except Exception as error:
        failed = error
    expected = isinstance(failed, ValueError | OSError | ImportError)
    told = None if failed is None else (expected, str(failed) or type(failed).__name__)
    found = [failure for failure in from_all(told) if failure is not None]
    if failed is not None:
        raise failed
    if found:
        expected, words = found[0]
        raise (ValueError if expected else RuntimeError)(words)
