# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whole runs of `visreg pretrain` in processes forked from one that has imported everything: 6 s less for each start.

usage: forked.py FOLDER JOBS   (JOBS: a JSON list, worked off in order; one line of JSON is printed for each)

A job is {"name": the run's folder in FOLDER, "options": {option: value}, "processes": 1}; its line holds the exit
codes of its ranks and what they wrote last. It may also say
  "sharded": true                     parameters are sharded by FSDP2
  "kills": n, "seed": s               it is killed n times at random moments before it may end
  "stopped": true                     it gets a SIGTERM after its first step; its line holds these exit codes too
  "stopped": "for good"               the same, and it does not go on
  "copy_of": another, "until": step   it goes on from an earlier checkpoint of another job
  "file_size": bytes                  no file may grow larger: what a full disk does to write()
A run forked before torch computed anything is the same as one that was started; so are a SIGKILL and a gloo rank.
One thread a process, and no GPU: bits depend on both.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import datasets
import yaml
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from helpers import fork_server
from visreg_training.config import from_keywords
from visreg_training.data.sources.digits import load_digits_dataset
from visreg_training.pretrain import main as pretrain
from visreg_training.run_folder import RunFolder


# A run of a second: 16 of 72 images of the digits a step, two resolutions, drop path and all random augmentation on.
SMALL = {
    "config": "digits",
    "fraction": 0.05,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "drop_path_rate": 0.2,
    "projector_hidden_size": 16,
    "projection_size": 8,
    "num_slices": 16,
    "global_batch_size": 16,
    "epochs": 6,
    "save_every": 3,
    "log_every": 4,
    "flip_probability": 0.5,
    "blur_probability": 0.5,
    "num_workers": 0,
}


FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "VISRegViTLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


def flags(options: dict) -> list[str]:
    """Options as the flags that say the same."""
    return [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]


def as_flags(options: dict) -> list[str]:
    """Options as flags of `visreg pretrain`; what is None is left out."""
    words = {True: "yes", False: "no"}
    flags = []
    for name, value in options.items():
        if value is not None:
            items = value if isinstance(value, list | tuple) else [value]
            flags += [f"--{name}", *(words[item] if isinstance(item, bool) else str(item) for item in items)]
    return flags


def write_recipe(path: Path, **changes) -> str:
    """SMALL as a recipe file, without held-out images; None leaves an option out."""
    recipe = from_keywords(**SMALL, output_dir="unused").as_recipe() | {"eval_split": None} | changes
    path.write_text(yaml.safe_dump({name: value for name, value in recipe.items() if value is not None}))
    return str(path)


def write_shards(folder: Path, shards: int = 3, images: int = 32) -> dict[str, bytes]:
    """The first digits as parquet files in row groups of 8; returns their content by name."""
    folder.mkdir(parents=True, exist_ok=True)
    datasets.disable_progress_bars()
    digits = load_digits_dataset("train").select(range(shards * images))
    paths = [folder / f"train-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]
    for number, path in enumerate(paths):
        digits.shard(shards, number, contiguous=True).to_parquet(path, batch_size=8)
    return {path.name: path.read_bytes() for path in paths}


def work_off(folder: Path, jobs: list[dict], limit: float = 300, **environment: str) -> list[dict]:
    """Work off jobs in a process of their own, as usage says; returns their lines.

    Raises:
        AssertionError: it ended before they were done.
    """
    arguments, cpu = [str(folder), json.dumps(jobs)], {"CUDA_VISIBLE_DEVICES": ""}
    if environment:  # of a Hub, which huggingface_hub reads when it is imported
        outer = os.environ | fork_server.THREADS | cpu | environment
        outer["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, env=outer, capture_output=True, text=True, check=False, timeout=limit)
    else:
        done = fork_server.run(*arguments, script=__file__, environment=cpu, limit=limit)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def final_weights(folder: Path) -> bytes:
    """The file of the finished model with its projector."""
    return (folder / "pretraining" / "model.safetensors").read_bytes()


class Ranks:
    """The processes of one run, each the leader of a group that its data workers belong to; they write one log."""

    def __init__(self, job: dict, folder: Path):
        processes = job.get("processes", 1)
        self.log, self.codes = folder / f"{job['name']}.log", [None] * processes
        self.log.write_text("")
        self.started = time.monotonic()
        port = free_port()
        self.pids = [
            fork_server.fork(partial(run_rank, job, rank, processes, port), self.log) for rank in range(processes)
        ]

    def running(self) -> bool:
        """Whether any rank is; reaps those that ended."""
        for rank, pid in enumerate(self.pids):
            if self.codes[rank] is None:
                ended, status = os.waitpid(pid, os.WNOHANG)
                self.codes[rank] = os.waitstatus_to_exitcode(status) if ended else None
        return None in self.codes

    def wait(self, limit: float = 240) -> list[int]:
        while self.running():
            if time.monotonic() - self.started > limit:
                self.kill()
                raise TimeoutError(f"not over after {limit} s: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)
        return self.codes

    def kill(self) -> bool:
        """SIGKILL to every rank and its workers; False if one had ended by itself."""
        alive = self.running() and self.codes.count(None) == len(self.codes)
        for rank, pid in enumerate(self.pids):
            if self.codes[rank] is None:
                os.killpg(pid, signal.SIGKILL)
                self.codes[rank] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return alive

    def steps(self) -> list[str]:
        """The lines of progress so far."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("step ")]


def run_rank(job: dict, rank: int, processes: int, port: int) -> None:
    """What a rank does in its process."""
    if processes > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}
        address |= {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ.update({name: str(value) for name, value in address.items()})
    if job.get("sharded"):
        shard_on_cpus()
    if "file_size" in job:
        fork_server.limit_files(job["file_size"])
    pretrain(as_flags(job["options"]))


def shard_on_cpus() -> None:
    """Accelerate reads the settings of FSDP for GPUs only; here its state takes them for CPUs. The rest is its own."""
    os.environ.update(FSDP)
    original = AcceleratorState.__init__

    def with_fsdp(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
        if not hasattr(self, "fsdp_plugin"):
            self.fsdp_plugin = FullyShardedDataParallelPlugin()
            if self._mixed_precision != "no":
                self.fsdp_plugin.set_mixed_precision(self._mixed_precision)

    AcceleratorState.__init__ = with_fsdp


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill_once(job: dict, folder: Path, draws: random.Random, last: bool) -> dict:
    """Start, wait for a random moment, kill. One start in four is not given the time for a step; the last kill waits
    for the last step, to hit what comes after it. A run that was over before is killed as it comes to its end again.
    """
    over = (folder / job["name"] / "summary.json").exists()
    ranks = Ranks(job, folder)
    if over or (not last and draws.random() < 0.25):
        time.sleep(draws.uniform(0.0, 0.3 if over else 1.0))
    else:
        wanted = draws.randint(1, 3)
        while ranks.running() and time.monotonic() - ranks.started < 120:
            lines = ranks.steps()
            done, total = map(int, lines[-1].split(",")[0].removeprefix("step ").split("/")) if lines else (0, 1)
            if done == total if last else len(lines) >= wanted:
                break
            time.sleep(0.002)
        time.sleep(draws.uniform(0.0, 0.08))  # a step and its checkpoint take about as long
    alive = ranks.kill()
    return {"alive": alive, "steps": len(ranks.steps()), "codes": ranks.codes}


def work(job: dict, folder: Path) -> dict:
    """Run a job to its end; returns what happened."""
    started, draws = time.monotonic(), random.Random(job.get("seed", 0))
    job["options"] |= {"output_dir": str(folder / job["name"]), "resume": "auto"}
    if "copy_of" in job:
        copy_until(folder / job["copy_of"], folder / job["name"], job["until"])
    stopped = stop_once(job, folder) if job.get("stopped") else None
    if job.get("stopped") == "for good":
        return {"name": job["name"], "stopped": stopped}
    kills, attempts = [], 0
    while len(kills) < job.get("kills", 0) and attempts < 3 * job["kills"]:
        attempts += 1
        hit = kill_once(job, folder, draws, len(kills) + 1 == job["kills"])
        kills += [hit["steps"]] if hit["alive"] else []
    ranks = Ranks(job, folder)
    codes, seconds = ranks.wait(), round(time.monotonic() - started, 1)
    said = ranks.log.read_text().splitlines()[-5:]
    line = {"name": job["name"], "codes": codes, "said": said, "seconds": seconds}
    return line | {"kills": kills, "stopped": stopped}


def stop_once(job: dict, folder: Path) -> list[int]:
    """Start, send SIGTERM to every rank after the first step that is seen; their exit codes."""
    ranks = Ranks(job, folder)
    checkpoints = RunFolder(folder / job["name"])
    while ranks.running() and not ranks.steps() and not checkpoints.newest_checkpoint():
        time.sleep(0.002)
    for pid in ranks.pids:
        os.kill(pid, signal.SIGTERM)
    return ranks.wait()


def copy_until(run: Path, copy: Path, step: int) -> None:
    """A run as it was when it had written the checkpoint of a step and nothing more."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("model", "pretraining", "summary.json"))
    for path in (copy / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)


def main() -> None:
    datasets.config.USE_PARQUET_EXPORT = False  # a loopback Hub has none
    folder = Path(sys.argv[1])
    for job in json.loads(sys.argv[2]):
        print(json.dumps(work(job, folder)), flush=True)


if __name__ == "__main__":
    main()
