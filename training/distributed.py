# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run or an evaluation tell each other outside the training step.

Every function works on one process too, with or without a process group.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist

from .errors import BadDataError


if TYPE_CHECKING:
    from accelerate import PartialState


T = TypeVar("T")


def rank_and_world(group: "dist.ProcessGroup | None" = None) -> tuple[int, int]:
    """(rank, number of processes) of the group, the default one if None; (0, 1) when there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def on_cpu() -> bool:
    """Whether there is no accelerator, or the launcher was told to leave it alone (`use_cpu` of its file)."""
    from accelerate.utils import parse_flag_from_env  # here: the objective needs this file, and torch only

    return not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")


def process_state() -> "PartialState":
    """Accelerate's view of this process: rank, number of processes, device. Starts the process group if need be.

    Without an accelerator Accelerate has to know: it would otherwise take torchrun's processes for single ones,
    and each would do all the work.
    """
    from accelerate import PartialState

    return PartialState(cpu=on_cpu())


def all_gather_object(value: T) -> list[T]:
    """The value of every rank, on every rank, in order of rank."""
    _rank, world = rank_and_world()
    if world == 1:
        return [value]
    gathered: list = [None] * world
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_object(value: T) -> T:
    """The main process's value, on every rank."""
    if rank_and_world()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Where one process fails inside, all fail at its end: none goes on to wait for one that never comes.

    Nothing inside may wait for other processes.

    Raises:
        ValueError: another process failed with a ValueError (a BadDataError is one), an OSError or an ImportError.
        RuntimeError: another process failed with anything else.
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    kind: type[Exception] = RuntimeError
    if isinstance(own, ValueError | OSError | ImportError):
        kind = BadDataError if isinstance(own, BadDataError) else ValueError
    failure = None if own is None else (kind, str(own) or type(own).__name__)
    failures = [one for one in all_gather_object(failure) if one is not None]
    if own is not None:
        raise own
    if failures:
        kind, message = failures[0]
        raise kind(message)


def lost_another_rank(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone; gloo says it with a plain RuntimeError."""
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "by peer" in str(error))
