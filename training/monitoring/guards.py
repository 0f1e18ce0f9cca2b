# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What stops a run before it wastes a night: values that are not finite, an embedding that collapsed, a signal."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data import BadDataError
from ..data.shards import StreamLostError
from ..distributed import lost_another_rank
from ..errors import RunStopped, failure_of_machine, one_line
from ..run_folder import appended


@contextmanager
def end_in_one_line() -> Iterator[None]:
    """What the outside world does to a run (data, disk, memory, other ranks, a compiler) ends it in one line.

    Raises:
        RunStopped: for such an error inside the block; a mistake of the program keeps its traceback.
    """
    try:
        yield
    except (BadDataError, StreamLostError, OSError, MemoryError) as error:
        raise RunStopped(failure_of_machine(error) or str(error)) from error
    except RuntimeError as error:
        if message := failure_of_machine(error):
            raise RunStopped(message) from error
        if lost_another_rank(error):
            raise RunStopped("another process of the run ended; its own message says why") from error
        kinds = [kind.__name__ for kind in type(error).__mro__]  # by name: the class's module takes a second to load
        if "BackendCompilerFailed" in kinds:
            raise RunStopped(
                f"torch.compile failed ({one_line(error)[:300]}): --compile no goes without it; else empty the folder "
                "of TORCHINDUCTOR_CACHE_DIR if a compilation was cut off there"
            ) from error
        raise


class FiniteGuard:
    """Updates that were not finite were left out on the device (`Updater`); this decides what happens next.

    The identifiers of the offending batches are appended to `path`, one object a batch.

    Args:
        path: of the list.
        action: "stop" or "skip".
        skipped: updates left out before a resume.
    """

    def __init__(self, path: Path, action: str, skipped: int = 0):
        self.path = path
        self.action = action
        self.skipped = skipped

    def check(self, bad: list[bool], batches: list[tuple[int, list[str]]], last_checkpoint: str | None) -> None:
        """`bad`: one flag an update of the interval; `batches`: (step, image ids) of the same updates.

        Raises:
            RunStopped: if there is any and the action is "stop".
        """
        found = [(step, ids) for flag, (step, ids) in zip(bad, batches, strict=True) if flag]
        if not found:
            return
        self.skipped += len(found)
        with appended(self.path) as file:
            for step, ids in found:
                file.write(json.dumps({"step": step, "ids": ids}) + "\n")
        if self.action == "stop":
            good = (
                f"the last good checkpoint is {last_checkpoint}"
                if last_checkpoint
                else "no checkpoint was written yet"
            )
            raise RunStopped(
                f"loss or gradient not finite at step {found[0][0]}; its images are listed in {self.path}; {good}; "
                "--on_nonfinite skip leaves such updates out"
            )


class CollapseGuard:
    """A low effective rank of the projections, or a low smallest sigma, for some intervals in a row is a collapse.

    Args:
        rank: effective rank below which an interval counts.
        sigma: smallest standard deviation below which an interval counts.
        patience: intervals in a row.
        action: "warn" or "stop".
        intervals_below: how many there were in a row before a resume.
    """

    def __init__(self, rank: float, sigma: float, patience: int, action: str, intervals_below: int = 0):
        self.rank, self.sigma = rank, sigma
        self.patience = patience
        self.action = action
        self.intervals_below = intervals_below

    def check(self, values: dict[str, float], step: int) -> str | None:
        """The warning to show, once, when a collapse is found.

        Raises:
            RunStopped: if the action is "stop".
        """
        below = values["projection_rank"] < self.rank or values["sigma_min"] < self.sigma
        self.intervals_below = self.intervals_below + 1 if below else 0
        if self.intervals_below != self.patience:
            return None
        message = (
            f"the embedding has collapsed: for {self.patience} intervals, to step {step}, its rank was under "
            f"{self.rank:g} or its smallest sigma under {self.sigma:g} (now {values['projection_rank']:.2g} and "
            f"{values['sigma_min']:.2g}); a larger regularization_weight or a smaller learning_rate helps"
        )
        if self.action == "stop":
            raise RunStopped(message)
        return message


class Signals:
    """SIGTERM and SIGINT ask for an end; a second one, a second later or more, ends the process at once.

    Within that second it is the same request once more: a launcher passes on what its children have got already.

    One process stops after the running step, several within seconds (`Agreement`); what happens is said at once.

    Args:
        told: whether this process says it.
    """

    def __init__(self, told: bool = True):
        self.told = told
        self.received: int | None = None
        self.since = 0.0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        # Only the main thread may, and only it is interrupted by a signal: a run in another one has none to answer.
        main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGTERM, signal.SIGINT) if main else ():
            self.previous[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def handle(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self.since = number, now
            if self.told:  # not through sys.stderr, which the signal may have interrupted
                os.write(2, b"\nstopping after this step, with a checkpoint; once more ends it at once, without\n")
        elif now - self.since > 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
