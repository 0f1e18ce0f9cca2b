# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Workers that are spawned (macOS, Windows, Python 3.14's fork server) make the runs that forked ones make."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from visreg_training.data.sources.digits import load_digits_dataset


pytestmark = [pytest.mark.cpu, pytest.mark.timeout(400)]

# Two runs with a worker in one process, as a user's script starts them; the last argument names the data of a stream.
SCRIPT = """
import multiprocessing
import sys

from visreg_training.pretrain import pretrain

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    small = {"num_hidden_layers": 1, "global_batch_size": 8, "num_slices": 8, "max_steps": 3, "num_workers": 1}
    small |= {"online_probe": False, "log_every": 1}
    streamed = {"dataset": sys.argv[2], "streaming": True, "epochs": 1}
    pretrain(**small, output_dir="device", augment_backend="device", **streamed)
    pretrain(**small, output_dir="torchvision", augment_backend="torchvision", dataset="digits")
"""


def started_by(method: str, folder: Path, data: Path) -> Path:
    """Where the runs of a process with this start method lie."""
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), method, str(data)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """64 digits in two parquet files."""
    folder, digits = tmp_path_factory.mktemp("data"), load_digits_dataset("train").select(range(64))
    for number in range(2):
        digits.shard(2, number, contiguous=True).to_parquet(folder / f"train-{number:05d}-of-00002.parquet")
    return folder


@pytest.fixture(scope="module")
def forked_runs(tmp_path_factory, data):
    return started_by("fork", tmp_path_factory.mktemp("runs") / "fork", data)


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_run_is_the_same_however_its_workers_start(method, tmp_path, data, forked_runs):
    """A stream with colors on the device, and a map-style source colored by torchvision in the worker."""
    runs = started_by(method, tmp_path / method, data)
    for name in ("device", "torchvision"):
        one, other = (load_file(folder / name / "pretraining" / "model.safetensors") for folder in (runs, forked_runs))
        assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)
        assert json.loads((runs / name / "summary.json").read_text())["steps"] == 3


UNGUARDED = """
import multiprocessing
from visreg_training.pretrain import pretrain
multiprocessing.set_start_method("spawn", force=True)
pretrain(config="digits", output_dir="run", max_steps=1, overwrite=True)
"""


def test_a_script_without_a_guard_does_not_run_a_second_time_in_its_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "call it below if __name__ == '__main__'" in done.stderr
    assert not (tmp_path / "run").exists()  # refused before anything starts
