# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How far something is that takes minutes: a bar on a terminal, a line every ten seconds elsewhere; rate, time left.

Both go to stderr, and what is over within two seconds shows nothing. Pretraining has a line an interval of its own.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm


T = TypeVar("T")

SECONDS = 10.0  # between two lines


class Track:
    """Counts up to `total`.

    Args:
        total: None where it is not known.
        what: is being done.
        unit: plural of what is counted.
        shown: whether this process shows it.
    """

    def __init__(self, total: int | None, what: str, unit: str = "images", shown: bool = True):
        self.total, self.what, self.unit = total, what, unit
        self.done, self.first = 0, 0
        self.started = self.said = time.monotonic()
        self.lines = shown and not sys.stderr.isatty()
        on_terminal = shown and not self.lines
        self.bar = tqdm(total=total, desc=what, unit=f" {unit}", disable=not on_terminal, delay=2, leave=False)

    def begin_at(self, done: int) -> None:
        """What was done before a resume counts, but not for the rate."""
        self.done = self.first = done
        self.bar.update(done)

    def add(self, count: int = 1) -> None:
        """`count` more are done."""
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.lines and now - self.said >= SECONDS:
            self.said = now
            print(self.line(now - self.started), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """How far it is after so many seconds."""
        rate = (self.done - self.first) / seconds
        if self.total is None:
            return f"{self.what}: {self.done} {self.unit}, {rate:.3g} a second"
        left = clock((self.total - self.done) / rate) if rate else "unknown time"
        return f"{self.what}: {self.done} of {self.total} {self.unit}, {rate:.3g} a second, {left} left"

    def close(self) -> None:
        self.bar.close()


def tracked(items: Iterable[T], total: int | None, what: str, unit: str = "images", shown: bool = True) -> Iterator[T]:
    """The same items, counted by a `Track` as they are taken."""
    track = Track(total, what, unit, shown)
    try:
        for item in items:
            yield item
            track.add()
    finally:
        track.close()


def clock(seconds: float) -> str:
    """1:02:03 for 3723 seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
