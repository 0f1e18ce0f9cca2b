# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One report a logging interval: the only synchronization of host and device between checkpoints.

V views, B images of the whole batch, D projection dimension, d width of the backbone.
"""

import contextlib
import math
import sys
import time

from ..distributed import all_gather_object
from ..loop.checkpoint import RunState
from ..loop.run import Run
from ..loop.updates import Update
from ..objective import embedding_diagnostics
from .curves import draw_curves
from .guards import CollapseGuard, FiniteGuard
from .held_out import HeldOut
from .metrics import Meters, MetricsLog, finite_or_none, peak_memory
from .probes import OnlineProbes
from .progress import Progress, Stopwatch, Timer


SCORES = ("total", "probe_linear", "held_out_linear")  # that rank checkpoints


class Reporter:
    """Collects what the updates yield, on the device, and once an interval reads, guards, logs, draws and shows it.

    Args:
        run: metrics.jsonl, curves.png and nonfinite-rank*.jsonl go into its folder.
        state: of the checkpoint that the run goes on from, or of its beginning.
        probes: online probes, or None.
        held_out: images to measure them on every `probe_every` steps, or None.
    """

    def __init__(self, run: Run, state: RunState, probes: OnlineProbes | None, held_out: HeldOut | None = None):
        options, schedule = run.options, run.schedule
        self.run, self.schedule, self.probes, self.held_out = run, schedule, probes, held_out
        self.gathered = options.statistics == "global"
        self.measure_every = options.probe_every or options.save_every
        self.meters = Meters()
        self.batches: list[tuple[int, list[str]]] = []  # (step, image ids) of the interval
        self.log = MetricsLog(run.folder.metrics, state.step) if run.is_main else None
        nonfinite = run.folder.nonfinite(run.accelerator.process_index)
        self.finite = FiniteGuard(nonfinite, options.on_nonfinite, state.skipped_updates)
        limits = options.collapse_rank, options.collapse_sigma, options.collapse_intervals, options.on_collapse
        self.collapse = CollapseGuard(*limits, state.intervals_below)
        self.progress = Progress(schedule.total_steps, state.step, schedule.global_batch_size, run.is_main)
        self.watch, self.timer = Stopwatch(), Timer(state.seconds)
        self.scores: dict[str, float | None] = dict(state.scores)
        self.waited = 0.0
        self.draw_after = -math.inf

    def add(self, update: Update) -> None:
        """After every update; never synchronizes."""
        output = update.output
        self.meters.add(output.terms._asdict() | {"grad_norm": update.gradient_norm}, update.skipped)
        self.batches.append((update.step, update.batch.ids))
        if self.probes is not None:
            labels = update.batch.labels.to(output.features.device, non_blocking=True)
            labels = self.run.accelerator.gather(labels) if self.gathered else labels
            self.probes.observe(output.blocks, output.features[: self.run.options.num_global], labels)

    def due(self, step: int) -> bool:
        """Whether update `step` (0-based) ends an interval."""
        return (step + 1) % self.run.options.log_every == 0 or step + 1 == self.schedule.total_steps

    def read(self, update: Update, wait_seconds: float, last_checkpoint: str | None) -> None:
        """The synchronization: a row of metrics.jsonl, a line on the screen, and the guards.

        Args:
            update: the interval's last.
            wait_seconds: spent waiting for data since the start.
            last_checkpoint: named if a guard stops the run.

        Raises:
            RunStopped: by a guard.
        """
        extra = embedding_diagnostics(update.output.projections, update.output.features)
        extra |= self.probes.read() if self.probes is not None else {}
        values, bad = self.meters.read(extra)
        batches, self.batches = self.batches, []
        row = self.row(update, values, wait_seconds, len(batches))
        row["skipped_updates"] = self.finite.skipped + sum(bad)
        row |= self.measure(update.step + 1 - len(batches), update.step + 1)
        row = {name: finite_or_none(value) for name, value in row.items()}
        self.scores |= {name: row[name] for name in SCORES if name in row}
        self.publish(row)
        self.finite.check(bad, batches, last_checkpoint)
        if not self.gathered:  # ranks see other projections, and have to agree on a verdict
            for name in ("projection_rank", "sigma_min"):
                values[name] = min(all_gather_object(values[name]))
        warning = self.collapse.check(values, update.step + 1)
        if warning and self.run.is_main:
            print(f"warning: {warning}", file=sys.stderr)

    def row(self, update: Update, values: dict[str, float], wait_seconds: float, count: int) -> dict[str, float]:
        """The numbers of an interval of `count` updates."""
        seconds, done, batch = self.watch.lap(), update.step + 1, self.schedule.global_batch_size
        row: dict[str, float] = {"step": done, "images": done * batch}
        if self.schedule.steps_per_epoch:
            row["epoch"] = round(done / self.schedule.steps_per_epoch, 4)
        row |= values | {
            "learning_rate": update.learning_rate,
            "images_per_second": count * batch / seconds,
            "data_wait": min(1.0, (wait_seconds - self.waited) / seconds),
            "memory_mib": peak_memory(self.run.accelerator.device),
        }
        self.waited = wait_seconds
        return row

    def measure(self, before: int, now: int) -> dict[str, float]:
        """The probes on held-out images, if a multiple of `measure_every` lies in (before, now] or at the end."""
        due = now // self.measure_every > before // self.measure_every or now == self.schedule.total_steps
        if self.held_out is None or self.probes is None or not due:
            return {}
        accuracy = self.held_out.measure(self.probes)
        self.watch.lap()  # not a second of the steps
        return accuracy

    def publish(self, row: dict) -> None:
        """Log, trackers and screen; on the main process."""
        if self.log is None:
            return
        self.log.write(row)
        logged = {key: value for key, value in row.items() if key != "step" and value is not None}
        self.run.accelerator.log(logged, step=row["step"])
        status = f"loss {row['total']:.4f}" if row["total"] is not None else "no finite loss"
        status += f", probe {row['probe_linear']:.3f}" if "probe_linear" in row else ""
        status += f", held out {row['held_out_linear']:.3f}" if "held_out_linear" in row else ""
        status += f", {row['data_wait']:.0%} waiting for data"
        self.progress.report(row["step"], row["images_per_second"], status)

    def draw(self, at_least: float = 0.0) -> None:
        """Bring curves.png up to date, unless it was drawn less than `at_least` seconds ago, or 50 times as long as
        it takes: a long run has many points. A disk that is full ends the checkpoint with a message, not the picture.
        """
        started = time.perf_counter()
        if self.log is None or not self.log.rows or (at_least and started < self.draw_after):
            return
        with contextlib.suppress(OSError):
            draw_curves(self.log.rows, self.run.folder.curves)
        now = time.perf_counter()
        self.draw_after = now + max(at_least, 50 * (now - started))

    def __enter__(self) -> "Reporter":
        self.timer = Timer(self.timer.before)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.progress.close()
        self.draw()

    def state(self, step: int, position: dict) -> RunState:
        """What a checkpoint after `step` updates says of the run; all ranks call this, each with its position."""
        return RunState(
            step=step,
            positions=all_gather_object(position),
            recipe=self.run.options.as_recipe(),
            seconds=self.timer.seconds(),
            scores={name: score for name, score in self.scores.items() if score is not None},
            skipped_updates=self.finite.skipped,
            intervals_below=self.collapse.intervals_below,
            probe=self.probes.state_dict() if self.probes is not None else None,
        )
