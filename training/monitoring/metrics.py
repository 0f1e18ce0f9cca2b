# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Meters on the device, and metrics.jsonl: a line a logging interval."""

import json
import math
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from ..run_folder import Json, appended, read_rows, write_text


class Meters:
    """Means of device scalars over an interval. `add` never synchronizes; `read` does, once."""

    def __init__(self):
        self.names: tuple[str, ...] = ()
        self.rows: list[torch.Tensor] = []  # (names + 1,), the flag last; an update costs a GPU this one launch

    def add(self, values: dict[str, torch.Tensor], skipped: torch.Tensor) -> None:
        """`skipped`: 0/1 flag of an update that was left out; its values do not enter the means."""
        self.names = tuple(values)
        self.rows.append(torch.stack([value.detach().float() for value in (*values.values(), skipped)]))

    def read(self, extra: dict[str, torch.Tensor]) -> tuple[dict[str, float], list[bool]]:
        """The means and `extra` as numbers, and which updates of the interval were skipped; starts the next."""
        rows, split = torch.stack(self.rows), len(self.names)
        flags = rows[:, split]
        used = len(rows) - flags.sum()  # 0 of them make a mean of NaN
        total = rows[:, :split].masked_fill(flags[:, None] > 0, 0).sum(0)
        more = [value.detach().float().reshape(()) for value in extra.values()]
        packed = torch.cat([total / used, flags, torch.stack(more) if more else flags[:0]]).tolist()
        values = dict(zip(self.names, packed[:split], strict=True))
        values |= dict(zip(extra, packed[split + len(rows) :], strict=True))
        bad = [flag > 0 for flag in packed[split : split + len(rows)]]
        self.rows = []
        return values, bad


def read_metrics(path: Path) -> list[Json]:
    """The rows of metrics.jsonl up to the first that no run wrote: numbers, and None where one was not finite."""
    return list(takewhile(_is_row, read_rows(path)))


def _is_row(row: Json) -> bool:
    """Whether a row has what every row has, and numbers only."""
    numbers = all(value is None or type(value) in (int, float) for value in row.values())
    stamps = (row.get(name) for name in ("step", "images", "images_per_second", "data_wait"))
    return numbers and "total" in row and None not in stamps and row["images_per_second"] > 0


class MetricsLog:
    """metrics.jsonl: one JSON object a logging interval, appended whole and flushed."""

    def __init__(self, path: Path, resume_step: int):
        self.path = path
        self.rows = [row for row in read_metrics(path) if row["step"] <= resume_step] if resume_step else []
        write_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def write(self, row: Json) -> None:
        """Append a row."""
        self.rows.append(row)
        with appended(self.path) as file:
            file.write(json.dumps(row) + "\n")


def finite_or_none(value: Any) -> Any:
    """JSON knows no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def peak_memory(device: torch.device) -> float:
    """Peak memory in MiB: of the device on CUDA, of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
