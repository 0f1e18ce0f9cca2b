# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run decide together between two updates: whether to stop, and whether to save."""

import time
from typing import NamedTuple

from ..distributed import all_gather_object, rank_and_world
from .guards import Signals


# Several processes ask each other this often, where their logging intervals are longer: torchrun kills those that are
# not done 30 s after a signal, and the checkpoint has to be written in that time too. Asking synchronizes the devices.
SECONDS = 5.0


class Decision(NamedTuple):
    """`stop`: one of the processes got a signal; `save`: the last checkpoint is too old."""

    stop: bool
    save: bool


class Agreement:
    """One process decides alone after every update; several meet at the end of a logging interval, or sooner.

    Args:
        signals: of this process.
        save_minutes: age of the last checkpoint above which another is due.
    """

    def __init__(self, signals: Signals, save_minutes: float):
        self.signals, self.save_seconds = signals, 60 * save_minutes
        self.alone = rank_and_world()[1] == 1
        self.updates_between = 1  # meetings; the pace of the first interval is not known
        self.updates = 0  # since the last one
        self.met = self.saved_at = time.perf_counter()

    def decide(self, meeting: bool) -> Decision:
        """After every update, on all processes; `meeting`: whether they are at the end of an interval."""
        self.updates += 1
        if not (meeting or self.alone or self.updates >= self.updates_between):
            return Decision(False, False)
        now = time.perf_counter()
        pace = (now - self.met) / self.updates
        answers = all_gather_object((bool(self.signals.received), now - self.saved_at >= self.save_seconds, pace))
        stops, saves, paces = zip(*answers, strict=True)
        self.updates_between = max(1, int(SECONDS / max(*paces, 1e-9)))
        self.met, self.updates = now, 0
        return Decision(any(stops), any(saves))

    def saved(self) -> None:
        """A checkpoint was written."""
        self.saved_at = time.perf_counter()
