# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Images a second and peak memory of whole training steps: our loop beside one written on lightly's parts.

    python tests/benchmarks/step.py --setting cifar10 --data CIFAR10_FOLDER --output tests/benchmarks/figures
    python tests/benchmarks/step.py --setting photos --data PHOTO_FOLDER --output tests/benchmarks/figures

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
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch


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
    from lightly_loop import LightlyLoop

    loop = LightlyLoop(files, options)
    return lambda: loop.step(options["learning_rate"], clock.mark)


def our_step(files: str, options: dict, clock: Clock) -> Callable[[], object]:
    """One pass of the body of `train` in training/pretrain.py, on the same parts."""
    from visreg_training.loop.assembly import (
        assemble,
        make_batches,
        make_held_out,
        make_step,
        seed_model,
    )
    from visreg_training.loop.config import as_flags, parse
    from visreg_training.loop.optimization import Updater, make_optimizer
    from visreg_training.loop.reporting import Reporter

    place = {"dataset": files, "output_dir": tempfile.mkdtemp(), "online_probe": False, "max_steps": 10**6}
    parts = assemble(parse(as_flags(options | place)))
    run, plan = parts.arguments.run, parts.plan
    step_module = make_step(parts)
    optimizer = make_optimizer(step_module, plan.learning_rate, run.weight_decay)
    step_module, prepared = parts.accelerator.prepare(step_module, optimizer)
    state = parts.checkpoints.restore(None, parts.model, optimizer)
    schedule = plan.schedule(run.final_learning_rate_ratio)
    update = Updater(parts.accelerator, prepared, step_module, run.clip_norm)
    report = Reporter(parts, state, None, make_held_out(parts))
    batches = make_batches(parts, state)
    step_module.train()
    mark_boundary(parts.model, clock)
    done = 0

    def one() -> None:
        nonlocal done
        step, done = done, done + 1
        waited = batches.waited
        batch = next(batches)
        clock.mark("data")
        clock.move("data", "views", batches.waited - waited)
        seed_model(run.seed, step, 0)
        output = step_module(batch.views, step)
        norm, skipped = update(output.terms.total, schedule.learning_rate(step))
        report.add(step, output, norm, skipped, batch)
        if report.due(step):
            report.read(step, output, schedule.learning_rate(step), batches.wait_seconds, None)
        clock.mark("optimizer")

    return one


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
    request = json.dumps([side, files, options, arguments.warm, arguments.steps])
    command = [sys.executable, __file__, "--measure", request]
    environment = {"GOMP_SPINCOUNT": "2000"} | os.environ
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return json.loads(result.stdout.splitlines()[-1])


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
        "views": "views: collate, to the device, colour",
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
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*json.loads(arguments.measure))))
        return
    from lightly_loop import SETTINGS

    if arguments.data is None:
        parser.error("--data is needed")
    files = str(arguments.data / "data" / "train-*.parquet")
    options = SETTINGS[arguments.setting]
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; load {os.getloadavg()[0]:.2f}")
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
