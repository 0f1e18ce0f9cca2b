# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Progress of a pretraining on the screen: a bar or lines, images a second, time left."""

import sys
import time

from tqdm import tqdm

from ..progress import clock


class Progress:
    """A bar on a terminal, a line an interval in a log file; images a second and time left in both."""

    def __init__(self, total_steps: int, start: int, global_batch_size: int, enabled: bool):
        self.total_steps = total_steps
        self.global_batch_size = global_batch_size
        self.lines = enabled and not sys.stderr.isatty()
        self.bar = tqdm(
            total=total_steps, initial=start, unit="step", disable=not enabled or self.lines, desc="pretraining"
        )

    def report(self, step: int, rate: float, status: str) -> None:
        """`step`: updates done; `rate`: images a second of the last interval; `status`: how it goes."""
        left = (self.total_steps - step) * self.global_batch_size / max(rate, 1e-9)
        text = f"{rate:.0f} images/s, {status}"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(step - self.bar.n)
        if self.lines:
            print(f"step {step}/{self.total_steps}, {text}, {clock(left)} left", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.bar.close()


class Stopwatch:
    """Seconds since the last call."""

    def __init__(self):
        self.last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        elapsed, self.last = now - self.last, now
        return elapsed


class Timer:
    """Seconds of training, those before a resume included."""

    def __init__(self, before: float):
        self.before, self.start = before, time.perf_counter()

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start
