# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg pretrain` itself on a folder of photos, from process start to metrics.jsonl, with an empty compile cache."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .steps import MODELS


TOY = {**MODELS["toy"], "num_global": 2, "num_local": 2, "mixed_precision": "no"}


def measure(photos: str, batch: int, steps: int, workers: int, small: bool) -> dict:
    """Rate after the first quarter of the steps, waiting, memory, and the seconds until the first row was written."""
    with tempfile.TemporaryDirectory() as folder:
        every = 1 if small else 10
        flags = {
            "dataset": photos,
            "output_dir": f"{folder}/run",
            "global_batch_size": batch,
            "max_steps": steps,
            "num_workers": workers,
            "log_every": every,
            "save_every": 10**6,
            "online_probe": False,
            **(TOY if small else {"config": "vit_base_in1k"}),
        }
        given = [f"--{name}={value}" for name, value in flags.items()]
        command = [sys.executable, "-m", "visreg_training.cli", "pretrain", *given]
        started, metrics = time.perf_counter(), Path(folder, "run", "metrics.jsonl")
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
        with open(f"{folder}/log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | caches)
            first = wait_for_row(process, metrics)
            code = process.wait()
        seconds = time.perf_counter()
        if code:
            return {"B": batch, "failed": Path(folder, "log").read_text()[-2000:]}
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    late = rows[len(rows) // 4 :]
    return {
        "B": batch,
        "workers": workers,
        "images_per_second": statistics.median(row["images_per_second"] for row in late),
        "data_wait": statistics.mean(row["data_wait"] for row in late),
        "memory_mib": rows[-1]["memory_mib"],
        "first_row_seconds": first - started,
        "steps_before_first_row": every,
        "seconds": seconds - started,
        "rates": [round(row["images_per_second"], 1) for row in rows],
    }


def wait_for_row(process: subprocess.Popen, metrics: Path) -> float:
    """When the first row was written, or the process ended."""
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    return time.perf_counter()
