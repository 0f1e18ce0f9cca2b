# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Processes that compile side by side, and are timed one at a time: compiling is the CPU's work and takes minutes.

A process prints READY when its first step is done, waits for a line, measures, and prints its result as JSON.
"""

import json
import subprocess
import sys
from typing import Any

from ..measuring import ROOT


READY = "ready to be timed"


def wait_for_turn() -> None:
    """Called by a process that is ready."""
    print(READY, flush=True)
    sys.stdin.readline()


class Wave:
    """Sides of one benchmark, started together; they have to fit onto the card together.

    Args:
        benchmark: module of this folder, whose `--measure` takes the arguments of a side.
        sides: arguments of each.
    """

    def __init__(self, benchmark: str, sides: list[list[Any]]):
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.gpu.{benchmark}", "--measure", json.dumps(side)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for side in sides
        ]

    def results(self) -> list[dict | None]:
        """What each measured, in order; None where it failed, whose error is on the screen."""
        for process in self.processes:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == READY:
                    break
        return [self.result(process) for process in self.processes]

    def result(self, process: subprocess.Popen) -> dict | None:
        """Let one process measure, and wait until it is gone from the card."""
        out, _ = process.communicate("go\n") if process.poll() is None else ("", None)
        return json.loads(out.splitlines()[-1]) if process.returncode == 0 else None
