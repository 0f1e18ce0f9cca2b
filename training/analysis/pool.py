# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Many runs, some at a time: cached results are not made again, and whoever is cut off goes on where it was.

Runs of one process go to a pool of workers that import the package once; those of N processes are trained one after
the other by N processes that are started for them and find each other as under `accelerate launch`.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import RunStopped
from ..progress import clock
from ..run_folder import Json
from .runs import Training, perform


def perform_all(runs: Iterable[Training], folder: Path, workers: int | None) -> dict[str, Json]:
    """The results of all runs by key, from `folder` where they are cached.

    Args:
        workers: trainings at a time; None for one a GPU, or a CPU core.

    Raises:
        RunStopped: a run of several processes failed; the others' results are cached.
    """
    workers = workers or torch.cuda.device_count() or os.cpu_count() or 1
    wanted = {run.key: run for run in runs}
    results = {key: run.cached(folder) for key, run in wanted.items()}
    missing = [run for key, run in wanted.items() if results[key] is None]
    # Runs that share a seed share their views, which a worker keeps while the next run wants the same.
    missing.sort(key=lambda run: (run.processes, run.options["dataset"], run.options["seed"], run.recipe))
    with Counter(len(missing), len(wanted)) as counter:
        for run, result in performed(missing, folder, workers):
            results[run.key] = result
            counter.add()
    return results


def performed(runs: list[Training], folder: Path, workers: int) -> Iterator[tuple[Training, Json]]:
    """(run, result) as they come."""
    single = [run for run in runs if run.processes == 1]
    if workers == 1 or len(single) < 2:
        yield from ((run, perform(run, folder)) for run in single)
    else:
        context = get_context("spawn")
        numbers = context.Queue()
        for number in range(workers):
            numbers.put(number)
        with ProcessPoolExecutor(workers, context, prepare_worker, (numbers, workers)) as pool:
            futures = {pool.submit(perform, run, folder): run for run in single}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for world in sorted({run.processes for run in runs} - {1}):
        yield from perform_together([run for run in runs if run.processes == world], folder)


def prepare_worker(numbers: Any, workers: int) -> None:
    """A worker's share of the machine: one GPU, or its part of the cores."""
    number = numbers.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % torch.cuda.device_count())
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def perform_together(runs: list[Training], folder: Path) -> Iterator[tuple[Training, Json]]:
    """Runs of as many processes, one after the other; each process has the environment that `accelerate launch` makes.

    Raises:
        RunStopped: one of them failed.
    """
    world = runs[0].processes
    command = [
        sys.executable,
        "-m",
        "visreg_training.analysis.runs",
        str(folder),
        *(json.dumps(asdict(run)) for run in runs),
    ]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(world)}
    processes = []
    for rank in range(world):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
        processes.append(subprocess.Popen(command, env=os.environ | shared | own, stderr=subprocess.PIPE, text=True))
    try:
        errors = [process.communicate()[1] for process in processes]
    except BaseException:
        for process in processes:
            process.kill()
        raise
    for run in runs:
        result = run.cached(folder)
        if result is None:
            last = next((text.strip().splitlines()[-1] for text in errors if text.strip()), "it said nothing")
            raise RunStopped(f"a run of {world} processes failed: {last}")
        yield run, result


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Counter:
    """A bar on a terminal, a line a run in a log file; runs a minute and time left in both."""

    def __init__(self, missing: int, wanted: int):
        self.missing, self.done, self.started = missing, 0, time.perf_counter()
        self.lines = not sys.stderr.isatty()
        self.bar = tqdm(total=missing, unit="run", desc="training", disable=self.lines or not missing)
        if wanted:
            print(f"{wanted} runs, {wanted - missing} of them cached before", file=sys.stderr, flush=True)

    def add(self) -> None:
        self.done += 1
        self.bar.update()
        if self.lines:
            seconds = time.perf_counter() - self.started
            left = clock(seconds / self.done * (self.missing - self.done))
            rate = f"{60 * self.done / seconds:.1f} runs a minute"
            print(f"run {self.done}/{self.missing}, {rate}, {left} left", file=sys.stderr, flush=True)

    def __enter__(self) -> "Counter":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.bar.close()
