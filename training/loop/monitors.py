# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a run says about itself: meters on the device, a line an interval in metrics.jsonl, progress on screen."""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm


class Meters:
    """Means of device scalars over an interval. `add` never synchronises; `read` does, once."""

    def __init__(self):
        self.names: tuple[str, ...] = ()
        self.total: torch.Tensor | None = None
        self.skipped: list[torch.Tensor] = []
        self.count = 0

    def add(self, values: dict[str, torch.Tensor], skipped: torch.Tensor) -> None:
        """`skipped`: 0/1 flag of an update that was left out; its values do not enter the means."""
        self.names = tuple(values)
        row = torch.stack([value.detach().float() for value in values.values()])
        row = torch.where(skipped > 0, torch.zeros_like(row), row)
        self.total = row if self.total is None else self.total + row
        self.skipped.append(skipped)
        self.count += 1

    def read(self, extra: dict[str, torch.Tensor]) -> tuple[dict[str, float], list[bool]]:
        """The means and `extra` as numbers, and which updates of the interval were skipped; starts the next."""
        flags = torch.stack(self.skipped)
        used = self.count - flags.sum()  # 0 of them make a mean of NaN
        more = [value.detach().float().reshape(()) for value in extra.values()]
        packed = torch.cat([self.total / used, flags, torch.stack(more) if more else flags[:0]]).tolist()
        split = len(self.names)
        values = dict(zip(self.names, packed[:split], strict=True))
        values |= dict(zip(extra, packed[split + self.count :], strict=True))
        bad = [flag > 0 for flag in packed[split : split + self.count]]
        self.total, self.skipped, self.count = None, [], 0
        return values, bad


class MetricsLog:
    """metrics.jsonl: one JSON object a logging interval, appended whole and flushed."""

    def __init__(self, path: Path, resume_step: int):
        self.path = path
        self.rows = [row for row in read_rows(path) if row["step"] <= resume_step] if resume_step else []
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        os.replace(part, path)

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file; a line cut by a kill is left out."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


class Progress:
    """A bar on a terminal, a line an interval in a log file; images a second and time left in both."""

    def __init__(self, total_steps: int, start: int, global_batch_size: int, enabled: bool):
        self.total_steps = total_steps
        self.global_batch_size = global_batch_size
        self.lines = enabled and not sys.stderr.isatty()
        self.bar = tqdm(
            total=total_steps, initial=start, unit="step", disable=not enabled or self.lines, desc="pretraining"
        )

    def report(self, step: int, rate: float, words: str) -> None:
        """`step`: updates done; `rate`: images a second of the last interval; `words`: how it goes."""
        left = (self.total_steps - step) * self.global_batch_size / max(rate, 1e-9)
        text = f"{rate:.0f} images/s, {words}"
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


def finite_or_none(value: Any) -> Any:
    """JSON knows no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clock(seconds: float) -> str:
    """1:02:03 for 3723 seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def peak_memory(device: torch.device) -> float:
    """Peak memory in MiB: of the device on CUDA, of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Timer:
    """Seconds of training, those before a resume included."""

    def __init__(self, before: float):
        self.before, self.start = before, time.perf_counter()

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start
