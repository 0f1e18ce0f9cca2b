# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Images a second and peak memory of whole training steps: our loop beside one written on lightly's parts.

    python -m benchmarks.step --setting cifar10 --data CIFAR10_FOLDER --output benchmarks/figures
    python -m benchmarks.step --setting photos --data PHOTO_FOLDER --output benchmarks/figures

Ours is the body of training/pretrain.py's loop on the parts it makes itself. Same images, views, model, projector,
batch, slices, float32, optimizer, two workers (`SETTINGS` in lightly_loop.py). The sides take turns, each time in a
process of its own: some steps to fill the queues, then the timed ones, then a few during which memory is sampled
(proportional set size of the process and its workers, so that what they share counts once). The CPU time of both
together bounds the rate, and tells of it also where the machine was not idle.

Batches that the workers made ahead while the program started are used up by the warm steps: with few of them, a side
whose workers are what holds it up looks faster than it can keep on being.

Where the time goes: `data` waits for the workers; `views` is what the main process does to them, or where it waits for
the thread that does; `backbone` and `objective` (projector and loss) are forward and backward; `optimizer` is clipping
and AdamW, and what is logged.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from .measuring import add_measure, in_fresh_process, machine


SIDES = ("ours", "lightly")
PHASES = ("data", "views", "backbone", "objective", "optimizer")
GOALS = {"cifar10": 1.4, "photos": 1.8}
SAMPLED_STEPS = 3


class Clock:
    """`mark(phase)` credits the time since the last mark to a phase."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.last = time.perf_counter()

    def mark(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Of what was credited to `source`, these belong to `target`."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds


def lightly_step(files: str, options: dict, clock: Clock) -> Callable[[], object]:
    """One update of lightly's side."""
    from .lightly_loop import LightlyLoop

    loop = LightlyLoop(files, options)
    return lambda: loop.step(options["learning_rate"], clock.mark)


def our_step(files: str, options: dict, clock: Clock) -> Callable[[], object]:
    """One pass of the body of `train` in training/pretrain.py, on the same parts."""
    from visreg_training.config import from_keywords
    from visreg_training.loop.checkpoint import RunState
    from visreg_training.loop.run import build_run
    from visreg_training.loop.updates import prepare, updates
    from visreg_training.loop.views import build_batches
    from visreg_training.monitoring.reporter import Reporter

    place = {"dataset": files, "output_dir": tempfile.mkdtemp(), "online_probe": False, "max_steps": 10**6}
    run = build_run(from_keywords(**options | place), choose_missing=False)
    batches, report = TimedBatches(build_batches(run), clock), Reporter(run, RunState(), None)
    mark_boundary(run.model, clock)
    every = updates(run, prepare(run), batches)

    def one() -> None:
        update = next(every)
        report.add(update)
        if report.due(update.step):
            report.read(update, batches.batches.wait_seconds, None)
        clock.mark("optimizer")

    return one


class TimedBatches:
    """Batches of a run, whose waiting is credited to the data, or to the views where they were not ready."""

    def __init__(self, batches, clock: Clock):
        self.batches, self.clock = batches, clock

    def __next__(self):
        waited = self.batches.waited
        batch = next(self.batches)
        self.clock.mark("data")
        self.clock.move("data", "views", self.batches.waited - waited)
        return batch


def mark_boundary(model: torch.nn.Module, clock: Clock) -> None:
    """Mark where features leave the backbone, and where their gradient comes back and the backbone's begins."""
    project = model.project

    def marked(features: torch.Tensor, *arguments) -> torch.Tensor:
        clock.mark("backbone")
        features.register_hook(lambda _gradient: clock.mark("objective"))
        return project(features, *arguments)

    model.project = marked
    for parameter in model.base_model.embeddings.parameters():  # the last of them ends backward
        parameter.register_post_accumulate_grad_hook(lambda _parameter: clock.mark("backbone"))


def measure(side: str, files: str, options: dict, warm: int, steps: int) -> dict:
    """Rate, CPU seconds an image, seconds a step by phase and peak memory of a side; in a process of its own."""
    clock = Clock()
    step = (our_step if side == "ours" else lightly_step)(files, options, clock)
    for _ in range(warm):
        step()
    clock.restart()
    started, cpu = time.perf_counter(), tree_cpu()
    for _ in range(steps):
        step()
    seconds, cpu = time.perf_counter() - started, tree_cpu() - cpu
    phases = {phase: clock.seconds[phase] / steps for phase in PHASES}
    rate = options["global_batch_size"] * steps / seconds
    cpu /= options["global_batch_size"] * steps
    return {"rate": rate, "cpu": cpu, "phases": phases, "peak": sampled_peak(step)}


def sampled_peak(step: Callable[[], object]) -> int:
    """Bytes that this process and its workers hold at most during a few steps."""
    samples, over = [], threading.Event()

    def sample() -> None:
        while not over.wait(0.03):
            samples.append(tree_memory())

    thread = threading.Thread(target=sample)
    thread.start()
    for _ in range(SAMPLED_STEPS):
        step()
    over.set()
    thread.join()
    return max(samples)


def tree() -> list[Path]:
    """This process and its workers, in /proc."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [Path("/proc") / pid for pid in ("self", *children)]


def tree_memory() -> int:
    """Proportional set size of this process and its workers, in bytes."""
    texts = [(process / "smaps_rollup").read_text().splitlines() for process in tree()]
    return sum(1024 * int(line.split()[1]) for lines in texts for line in lines if line.startswith("Pss:"))


def tree_cpu() -> float:
    """Seconds of CPU time of this process and its workers."""
    ticks = 0
    for process in tree():
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def run_side(side: str, arguments: argparse.Namespace, files: str, options: dict) -> dict:
    """`measure` in a fresh process, where threads wait as `visreg` lets them (cli.py)."""
    environment = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "2000")}
    return in_fresh_process("step", side, files, options, arguments.warm, arguments.steps, environment=environment)


def summary(rounds: list[dict]) -> dict:
    """Median over the rounds of each side, and the ratio of rates of each round."""
    found = {"ratios": [one["ours"]["rate"] / one["lightly"]["rate"] for one in rounds]}
    for side in SIDES:
        runs = [one[side] for one in rounds]
        found[side] = {key: statistics.median(run[key] for run in runs) for key in ("rate", "cpu", "peak")}
        found[side]["phases"] = {phase: statistics.median(run["phases"][phase] for run in runs) for phase in PHASES}
    return found


def table(found: dict, batch: int) -> str:
    """Markdown: a line a side."""
    phases = " | ".join(f"{phase}, ms" for phase in PHASES)
    lines = [f"| side | images a second | CPU ms an image | peak MB | {phases} |", "|---" * (4 + len(PHASES)) + "|"]
    for side in SIDES:
        one = found[side]
        phases = " | ".join(f"{1000 * one['phases'][phase] / batch:.2f}" for phase in PHASES)
        lines.append(f"| {side} | {one['rate']:.1f} | {1000 * one['cpu']:.1f} | {one['peak'] / 1e6:.0f} | {phases} |")
    return "\n".join(lines)


def plot(found: dict, setting: str, batch: int, path: Path) -> None:
    """Milliseconds an image, stacked by phase."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {
        "data": "waiting for data",
        "views": "views: collate, to the device, color",
        "backbone": "backbone, forward and backward",
        "objective": "projector and objective, forward and backward",
        "optimizer": "optimizer and log",
    }
    figure, axis = pyplot.subplots(figsize=(9, 3.2), constrained_layout=True)
    left = dict.fromkeys(SIDES, 0.0)
    for phase in PHASES:
        widths = [1000 * found[side]["phases"][phase] / batch for side in SIDES]
        axis.barh(SIDES, widths, left=[left[side] for side in SIDES], label=titles[phase])
        for side, width in zip(SIDES, widths, strict=True):
            left[side] += width
    for row, side in enumerate(SIDES):
        axis.text(left[side], row, f" {found[side]['rate']:.0f} images/s", va="center")
    axis.set(xlabel="milliseconds an image", xlim=(0, 1.2 * max(left.values())))
    axis.set_title(f"A training step, {setting}, batch {batch}, float32, {os.cpu_count()} CPU cores, 2 workers")
    axis.invert_yaxis()
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=sorted(GOALS), default="cifar10")
    parser.add_argument("--data", type=Path, help="folder of the data set, with data/train-*.parquet")
    parser.add_argument("--output", type=Path, help="folder for step_SETTING.png")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--warm", type=int, default=12, help="steps before the timed ones: twice what the queues hold")
    parser.add_argument("--steps", type=int, default=25, help="timed steps a turn")
    add_measure(parser)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    from .lightly_loop import SETTINGS

    if arguments.data is None:
        parser.error("--data is needed")
    files = str(arguments.data / "data" / "train-*.parquet")
    options = SETTINGS[arguments.setting]
    print(machine())
    rounds = []
    for _ in range(arguments.rounds):
        rounds.append({side: run_side(side, arguments, files, options) for side in SIDES})
        print({side: round(one["rate"], 1) for side, one in rounds[-1].items()}, flush=True)
    found, batch = summary(rounds), options["global_batch_size"]
    ratios = ", ".join(f"{ratio:.2f}" for ratio in found["ratios"])
    print(
        f"\n{table(found, batch)}\n\n{arguments.setting}, batch {batch}: ours / lightly, images a second: "
        f"{statistics.median(found['ratios']):.2f} (rounds: {ratios}; goal {GOALS[arguments.setting]}); "
        f"CPU time {found['ours']['cpu'] / found['lightly']['cpu']:.2f}, "
        f"peak memory {found['ours']['peak'] / found['lightly']['peak']:.2f}"
    )
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        path = arguments.output / f"step_{arguments.setting}.png"
        plot(found, arguments.setting, batch, path)
        print(path)


if __name__ == "__main__":
    main()
