# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The objective and whole steps of this checkout beside those of another one, in turns: is anything slower now?

    git worktree add ../before 2633eb7   # version 0.1.0
    python -m benchmarks.versions --before ../before --data CIFAR10_FOLDER

Each turn is a process of its own on the CPU, by that checkout's own benchmarks/objective.py and benchmarks/step.py
(its side `ours`), with this environment's libraries. The first of a round changes, so that neither has the warmer
machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from .measuring import ROOT, machine


PACKAGES = {"visreg_training": "training", "visreg_hub_cards": "hub_cards", "modeling_visreg": "modeling_visreg"}
CASES = [{"B": 64, "D": 256, "K": 4096}, {"B": 512, "D": 256, "K": 4096}, {"B": 512, "D": 64, "K": 1024}]
KINDS = ("ours", "SIGReg (ours)")
REPEATS = 12


class Checkout:
    """A tree whose packages are imported as they are there, whatever is installed.

    Args:
        root: of the tree.
        links: an empty folder, for the names under which the packages are imported.
    """

    def __init__(self, root: Path, links: Path):
        self.root = root
        for name, folder in PACKAGES.items():
            (links / name).symlink_to(root.resolve() / folder)
        self.environment = os.environ | {"PYTHONPATH": str(links), "GOMP_SPINCOUNT": "2000"}

    def measure(self, benchmark: str, *arguments) -> dict:
        """What the checkout's own benchmark says of one side, in a fresh process."""
        old = self.root / "tests/benchmarks" / f"{benchmark}.py"  # of 0.1.0
        command = [sys.executable, *([str(old)] if old.exists() else ["-m", f"benchmarks.{benchmark}"])]
        command += ["--measure", json.dumps(arguments)]
        result = subprocess.run(
            command, cwd=self.root, stdout=subprocess.PIPE, text=True, check=True, env=self.environment
        )
        return json.loads(result.stdout.splitlines()[-1])


def work(data: Path | None) -> dict[str, tuple]:
    """Arguments of `measure` by the name of what is measured."""
    found: dict[str, tuple] = {}
    for case in CASES:
        for kind in KINDS:
            sizes = ", ".join(f"{key} {value}" for key, value in case.items())
            found[f"{'SIGReg' if 'SIG' in kind else 'VISReg'}, {sizes}"] = ("objective", kind, case, REPEATS)
    if data is not None:
        from .lightly_loop import SETTINGS

        files = str(data / "data" / "train-*.parquet")
        found["step, CIFAR-10"] = ("step", "ours", files, SETTINGS["cifar10"], 12, 25)
    return found


def seconds(measured: dict) -> float:
    """Of a call, or of an image."""
    return measured["seconds"] if "seconds" in measured else 1 / measured["rate"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10, with data/train-*.parquet; else no steps")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(machine(), flush=True)
    print("\n| what | before, ms | now, ms | now / before | rounds |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as before, tempfile.TemporaryDirectory() as now:
        sides = {"before": Checkout(arguments.before, Path(before)), "now": Checkout(ROOT, Path(now))}
        for name, call in work(arguments.data).items():
            times: dict[str, list[float]] = {side: [] for side in sides}
            for turn in range(arguments.rounds):
                for side in sorted(sides, reverse=turn % 2 == 1):
                    times[side].append(1000 * seconds(sides[side].measure(*call)))
            ratios = [new / old for new, old in zip(times["now"], times["before"], strict=True)]
            medians = " | ".join(f"{statistics.median(times[side]):.2f}" for side in sides)
            listed = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
            print(f"| {name} | {medians} | {statistics.median(ratios):.2f} | {listed} |", flush=True)


if __name__ == "__main__":
    main()
