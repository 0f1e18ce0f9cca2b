# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One report a logging interval: the only synchronisation of host and device between checkpoints.

V views, B images of the whole batch, D projection dimension, d width of the backbone.
"""

import contextlib
import math
import sys
import time
from typing import Any

import torch

from ..objective import embedding_diagnostics
from .curves import draw_curves
from .guards import CollapseGuard, FiniteGuard
from .held_out import HeldOut
from .monitors import Meters, MetricsLog, Progress, Stopwatch, Timer, finite_or_none, peak_memory
from .probes import OnlineProbes
from .ranks import everybody
from .step import StepOutput


SCORES = ("total", "probe_linear", "held_out_linear")  # that rank checkpoints


class Reporter:
    """Gathers what the steps say, on the device, and once an interval reads, guards, logs, draws and shows it.

    Args:
        parts: the run; metrics.jsonl, curves.png and nonfinite-rank*.jsonl go into its folder.
        state: of the checkpoint that the run goes on from, or of its beginning.
        probes: online probes, or None.
        held_out: images to measure them on every `probe_every` steps, or None.
    """

    def __init__(
        self, parts: Any, state: dict[str, Any], probes: OnlineProbes | None, held_out: HeldOut | None = None
    ):
        start = state["step"]
        run, plan, accelerator, folder = parts.arguments.run, parts.plan, parts.accelerator, parts.folder
        self.folder, self.plan, self.accelerator = folder, plan, accelerator
        self.probes, self.held_out = probes, held_out
        self.num_global = parts.arguments.data.num_global
        self.gathered = parts.arguments.objective.statistics == "global"
        self.main = accelerator.is_main_process
        self.every, self.measure_every = run.log_every, run.probe_every or run.save_every
        self.meters = Meters()
        self.batches: list[tuple[int, list[str]]] = []
        self.log = MetricsLog(folder / "metrics.jsonl", start) if self.main else None
        self.finite = FiniteGuard(folder / f"nonfinite-rank{accelerator.process_index}.jsonl", run.on_nonfinite)
        self.finite.skipped = state["skipped_updates"]
        limits = run.collapse_rank, run.collapse_sigma, run.collapse_intervals, run.on_collapse
        self.collapse = CollapseGuard(*limits, state.get("intervals_below", 0))
        self.progress = Progress(plan.total_steps, start, plan.global_batch_size, self.main)
        self.watch = Stopwatch()
        self.scores: dict[str, float | None] = dict(state.get("scores", {}))
        self.waited = 0.0
        self.drawn = -math.inf

    def add(self, step: int, output: StepOutput, grad_norm: torch.Tensor, skipped: torch.Tensor, batch: Any) -> None:
        """After every update; never synchronises."""
        values = output.terms._asdict() | {"grad_norm": grad_norm}
        self.meters.add(values, skipped)
        self.batches.append((step, batch.ids))
        if self.probes is not None:
            labels = batch.labels.to(output.features.device, non_blocking=True)
            labels = self.accelerator.gather(labels) if self.gathered else labels
            self.probes.observe(output.blocks, output.features[: self.num_global], labels)

    def due(self, step: int) -> bool:
        """Whether update `step` (0-based) ends an interval."""
        return (step + 1) % self.every == 0 or step + 1 == self.plan.total_steps

    def read(
        self, step: int, output: StepOutput, rate: float, wait_seconds: float, last: str | None
    ) -> dict[str, Any]:
        """The synchronisation. `rate`: learning rate; `wait_seconds`: spent waiting for data since the start;
        `last`: the newest checkpoint, named if a guard stops the run. Returns the row of metrics.jsonl.

        Raises:
            RunStopped: by a guard.
        """
        extra = embedding_diagnostics(output.projections, output.features)
        extra |= self.probes.read() if self.probes is not None else {}
        values, bad = self.meters.read(extra)
        seconds = self.watch.lap()
        done = len(self.batches) * self.plan.global_batch_size
        row = {"step": step + 1, "images": (step + 1) * self.plan.global_batch_size}
        if self.plan.steps_per_epoch:
            row["epoch"] = round((step + 1) / self.plan.steps_per_epoch, 4)
        row |= values | {
            "learning_rate": rate,
            "images_per_second": done / seconds,
            "data_wait": min(1.0, (wait_seconds - self.waited) / seconds),
            "memory_mib": peak_memory(self.accelerator.device),
            "skipped_updates": self.finite.skipped + sum(bad),
        }
        self.waited = wait_seconds
        batches, self.batches = self.batches, []
        row |= self.measure(step + 1 - len(batches), step + 1)
        row = {name: finite_or_none(value) for name, value in row.items()}
        self.scores |= {name: row[name] for name in SCORES if name in row}
        self.publish(row)
        self.finite.check(bad, batches, last)
        if not self.gathered:  # ranks see other projections, and have to agree on a verdict
            for name in ("projection_rank", "sigma_min"):
                values[name] = min(everybody(self.accelerator, values[name]))
        warning = self.collapse.check(values, step + 1)
        if warning and self.main:
            print(f"warning: {warning}", file=sys.stderr)
        return row

    def measure(self, before: int, now: int) -> dict[str, float]:
        """The probes on held-out images, if a multiple of `measure_every` lies in (before, now] or at the end."""
        due = now // self.measure_every > before // self.measure_every or now == self.plan.total_steps
        if self.held_out is None or not due:
            return {}
        accuracy = self.held_out.measure(self.probes)
        self.watch.lap()  # not a second of the steps
        return accuracy

    def publish(self, row: dict[str, Any]) -> None:
        """Log, trackers and screen; on the main process."""
        if not self.main:
            return
        self.log.write(row)
        logged = {key: value for key, value in row.items() if key != "step" and value is not None}
        self.accelerator.log(logged, step=row["step"])
        words = f"loss {row['total']:.4f}" if row["total"] is not None else "no finite loss"
        words += f", probe {row['probe_linear']:.3f}" if "probe_linear" in row else ""
        words += f", held out {row['held_out_linear']:.3f}" if "held_out_linear" in row else ""
        words += f", {row['data_wait']:.0%} waiting for data"
        self.progress.report(row["step"], row["images_per_second"], words)

    def draw(self, at_least: float = 0.0) -> None:
        """Bring curves.png up to date, unless it was drawn less than `at_least` seconds ago."""
        if self.main and self.log.rows and time.perf_counter() - self.drawn >= at_least:
            self.drawn = time.perf_counter()
            draw_curves(self.log.rows, self.folder / "curves.png")

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.progress.close()
        with contextlib.suppress(OSError):  # a full disk has been told of, or will be
            self.draw()

    def progress_made(self, timer: Timer) -> dict[str, Any]:
        """What a checkpoint keeps of the run's history: seconds, what the guards counted, what ranks checkpoints."""
        scores = {name: score for name, score in self.scores.items() if score is not None}
        counted = {"skipped_updates": self.finite.skipped, "intervals_below": self.collapse.intervals_below}
        return {"seconds": timer.seconds(), "scores": scores, **counted}
