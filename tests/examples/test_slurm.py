# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""examples/pretrain.slurm with an `srun` that starts its tasks here: machines that run tests have no queue."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import forked
from visreg_training.run_folder import RunFolder


pytestmark = [pytest.mark.cpu, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).parents[2] / "examples" / "pretrain.slurm"
# As SLURM: the tasks in parallel, each with its number; SIGTERM when the time is nearly over; the highest exit code.
SRUN = """#!{python}
import os, signal, subprocess, sys, time
from pathlib import Path
command = sys.argv[1:]
assert command[:2] == ["--cpus-per-task=2", "--kill-on-bad-exit=0"], command
numbers = range(int(os.environ["SLURM_NTASKS"]))
variables = [{{"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)}} for n in numbers]
tasks = [subprocess.Popen(command[2:], env=os.environ | more) for more in variables]
while all(task.poll() is None for task in tasks) and not any(Path({run!r}).glob("checkpoints/step-*5")):
    time.sleep(0.05)
for task in tasks:
    task.poll() is None and task.send_signal(signal.SIGTERM)
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = "#!/bin/sh\n[ $1 = show ] && echo 127.0.0.1 || echo $@ >> {log}\n"


def submitted(folder, *flags):
    """(exit code, what was said to the queue) of the job."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    texts = {"srun": SRUN.format(python=sys.executable, run=str(folder / "run")), "activate": ":"}
    texts["scontrol"] = SCONTROL.format(log=folder / "queue")
    for name, text in texts.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    job = {"SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here"}
    job |= {
        "VISREG_ENVIRONMENT": str(folder),
        "PATH": f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    script = folder / "pretrain.slurm"
    script.write_text(SCRIPT.read_text().replace("MASTER_PORT=29500", f"MASTER_PORT={forked.free_port()}"))
    command = ["bash", str(script), *flags]
    done = subprocess.run(command, env=os.environ | job, capture_output=True, text=True, check=False, timeout=500)
    queue = folder / "queue"
    return done.returncode, queue.read_text().split("\n") if queue.exists() else [], done.stderr


def test_what_was_interrupted_is_queued_again(tmp_path):
    recipe = forked.write_recipe(tmp_path / "small.yaml")
    flags = ["--config", recipe, "--output_dir", str(tmp_path / "run"), "--global_batch_size", "16"]
    flags += ["--max_steps", "100000", "--save_every", "5", "--log_every", "100000", "--num_workers", "0"]
    code, queue, said = submitted(tmp_path, *flags)
    assert (code, queue) == (75, ["requeue 7", ""]), said
    assert RunFolder(tmp_path / "run").newest_checkpoint() is not None
    assert said.count("stopping after this step") == 1  # not by every rank


def test_a_mistake_is_not_queued_again(tmp_path):
    code, queue, said = submitted(tmp_path, "--output_dir", str(tmp_path / "run"), "--epoch", "3")
    assert (code, queue) == (2, []) and "did you mean 'epochs'" in said
