# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: a fresh process for each side, and the peak of allocated tensors."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parents[1]


def machine() -> str:
    """The machine and the versions that a timing depends on, in one line."""
    import numpy
    import torch

    versions = f"torch {torch.__version__}, numpy {numpy.__version__}"
    return f"{platform.machine()}, {os.cpu_count()} cores, {versions}; load before: {os.getloadavg()[0]:.2f}"


def add_measure(parser: argparse.ArgumentParser) -> None:
    """The flag by which `in_fresh_process` passes its arguments on."""
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)


def in_fresh_process(benchmark: str, *arguments: Any, environment: dict[str, str] | None = None) -> Any:
    """What `python -m benchmarks.BENCHMARK --measure ARGUMENTS` prints last, as JSON.

    A side gets a process of its own: it finds neither the other's memory nor its threads.
    """
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--measure", json.dumps(arguments)]
    result = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | (environment or {})
    )
    return json.loads(result.stdout.splitlines()[-1])


def allocated_peak(call: Callable[[], object]) -> int:
    """Bytes of tensors on the CPU, at their highest, above what was there when `call` began.

    It counts what torch asks for, which is what fills a GPU; resident memory (visreg_training.analysis.memory) adds
    what the C library keeps of blocks that were given back to it.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        current += change.nbytes()
        peak = max(peak, current)
    return peak
