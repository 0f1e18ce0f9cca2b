# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What stops a run before it wastes a night: values that are not finite, an embedding that collapsed, a signal."""

import json
import signal
from pathlib import Path
from typing import Any

from ..errors import RunStopped


class FiniteGuard:
    """Updates that were not finite were left out on the device (`Updater`); this decides what happens next.

    The identifiers of the offending batches are appended to `nonfinite.jsonl`, one object a batch.
    """

    def __init__(self, path: Path, action: str):
        self.path = path
        self.action = action
        self.skipped = 0

    def check(self, bad: list[bool], batches: list[tuple[int, list[str]]], last_checkpoint: str | None) -> None:
        """`bad`: one flag an update of the interval; `batches`: (step, image ids) of the same updates.

        Raises:
            RunStopped: if there is any and the action is "stop".
        """
        found = [(step, ids) for flag, (step, ids) in zip(bad, batches, strict=True) if flag]
        if not found:
            return
        self.skipped += len(found)
        with self.path.open("a", encoding="utf-8") as file:
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
    """An effective rank of the projections below `threshold` for `patience` intervals in a row is a collapse."""

    def __init__(self, threshold: float, patience: int, action: str):
        self.threshold = threshold
        self.patience = patience
        self.action = action
        self.run = 0

    def check(self, values: dict[str, float], step: int) -> str | None:
        """The warning to show, once, when a collapse is found.

        Raises:
            RunStopped: if the action is "stop".
        """
        self.run = self.run + 1 if values["projection_rank"] < self.threshold else 0
        if self.run != self.patience:
            return None
        message = (
            f"the embedding has collapsed: the effective rank of the projections stayed below {self.threshold:g} for "
            f"{self.patience} intervals, to step {step} (min sigma {values['sigma_min']:.2g}); a larger "
            "regularization_weight or a smaller learning_rate helps"
        )
        if self.action == "stop":
            raise RunStopped(message)
        return message


class Signals:
    """SIGTERM and SIGINT ask for an end after the running step; a second one ends the process at once."""

    def __init__(self):
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self.previous[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def handle(self, number: int, frame: Any) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = number
