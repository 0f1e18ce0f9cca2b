# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whole runs on two real gloo processes, started as a user starts them, against one process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset, Image
from transformers import AutoModel

import modeling_visreg  # noqa: F401  (registers the Auto classes)
from helpers import forked
from helpers.step_on_ranks import SHARDS_ON_CPUS
from visreg_training.config import RECIPES
from visreg_training.pretrain import pretrain


pytestmark = [pytest.mark.cpu, pytest.mark.timeout(900)]

# What depends on the rank's own draws is off: colors and drop path. Crops are a function of the image.
PLAIN = {"drop_path_rate": 0, "jitter_probability": 0, "blur_probability": 0, "log_every": 1, "max_steps": 6}
PLAIN |= {"learning_rate": 2e-4}  # so that what rounding parts stays close


def launched(options):
    config = str(RECIPES / "accelerate" / "cpu_2_processes.yaml")
    launcher = [str(Path(sys.executable).with_name("accelerate")), "launch", "--config_file", config]
    return [*launcher, "-m", "visreg_training.pretrain", *forked.flags(options)]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_does(recipe, tmp_path):
    pretrain(config=recipe, output_dir=str(tmp_path / "one"), **PLAIN)
    options = {"config": recipe, "output_dir": tmp_path / "two", **PLAIN}
    done = subprocess.run(launched(options), capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert json.loads((tmp_path / "two" / "run.json").read_text())["plan"]["rank_batch_size"] == 8
    for name in ("total", "invariance", "center", "scale", "shape", "grad_norm", "projection_rank", "sigma_min"):
        assert two[0][name] == pytest.approx(one[0][name], rel=5e-5), name
    # Later steps part by rounding alone, to 5e-4 seen: AdamW's first updates are signs of gradients, however small.
    assert [row["total"] for row in two] == pytest.approx([row["total"] for row in one], rel=5e-3)
    assert [row["probe_knn"] for row in two[:2]] == [row["probe_knn"] for row in one[:2]]


def test_two_processes_are_stopped_and_killed_and_go_on(recipe, tmp_path):
    options = {"config": recipe, "epochs": 3, "save_every": 1, "log_every": 1}
    broken = {"name": "run", "options": options, "stopped": True, "kills": 3, "seed": 2}
    jobs = [{"name": "unbroken", "options": options}, broken]
    unbroken, run = forked.work_off(tmp_path, [job | {"processes": 2} for job in jobs])
    assert unbroken["codes"] == run["codes"] == [0, 0] and len(run["kills"]) == 3
    assert run["stopped"] == [75, 75]  # SIGTERM: they agree on a step, write a checkpoint and end
    assert forked.final_weights(tmp_path / "run") == forked.final_weights(tmp_path / "unbroken")


def test_two_processes_stop_long_before_their_logging_interval_ends(recipe, tmp_path):
    """torchrun kills after 30 s. They would never end here: the interval is as long as the run, a million steps."""
    options = {"config": recipe, "max_steps": 1_000_000, "log_every": 1_000_000, "save_every": 5}
    job = {"name": "run", "options": options, "processes": 2, "stopped": "for good"}
    [run] = forked.work_off(tmp_path, [job])
    assert run["stopped"] == [75, 75]


@pytest.mark.skipif(not SHARDS_ON_CPUS, reason="this torch cannot shard on a CPU")
def test_sharded_runs_are_those_of_whole_parameters(recipe, tmp_path):
    """FSDP2 through Accelerate: the losses of DDP, checkpoints that load in either, and a whole model at the end."""
    options = {"config": recipe, "epochs": 2, "log_every": 1, "keep_last": 9, "eval_split": "test", "probe_images": 64}
    jobs = [
        {"name": "ddp", "options": options},
        {"name": "fsdp", "options": options, "sharded": True},
        {"name": "ddp-fsdp", "options": options, "sharded": True, "copy_of": "ddp", "until": 3},
        {"name": "fsdp-ddp", "options": options, "copy_of": "fsdp", "until": 3},
        {"name": "half", "options": options | {"mixed_precision": "bf16", "max_steps": 2}, "sharded": True},
    ]
    done = forked.work_off(tmp_path, [job | {"processes": 2} for job in jobs])
    assert [job["codes"] for job in done] == 5 * [[0, 0]]
    losses = {job["name"]: [row["total"] for row in rows(tmp_path / job["name"])] for job in jobs}
    assert losses["half"][0] == pytest.approx(losses["ddp"][0], rel=2e-2) and losses["half"][0] != losses["ddp"][0]
    del losses["half"]
    moments = {name: moments_after(tmp_path / name, 8) for name in losses}
    for name in ("fsdp", "ddp-fsdp", "fsdp-ddp"):
        assert losses[name] == pytest.approx(losses["ddp"], rel=1e-4) and len(losses[name]) == 8
        apart = [(moments[name][key] - value).norm() / value.norm() for key, value in moments["ddp"].items()]
        # Rounding grows over eight updates (0.003 seen); other moments would be 1 apart. Not all: batch norm makes the
        # gradient of some biases rounding.
        assert sorted(apart)[len(apart) // 2] < 1e-2
    assert AutoModel.from_pretrained(tmp_path / "fsdp" / "model").dtype == torch.float32
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("ddp", "fsdp")]
    assert summaries[0]["knn_before"] == summaries[1]["knn_before"]
    assert abs(summaries[0]["knn_after"] - summaries[1]["knn_after"]) < 0.05


def moments_after(folder, step):
    """Second moments of AdamW by parameter name."""
    state = torch.load(folder / "checkpoints" / f"step-{step:08d}" / "optimizer.pt", weights_only=True)["state"]
    assert all(moment["step"] == step for moment in state.values())
    return {name: moment["exp_avg_sq"] for name, moment in state.items()}


def test_what_ends_one_rank_ends_the_others(recipe, tmp_path):
    """One of two shards holds no images: its rank says so and ends; the other does not wait for it."""
    forked.write_shards(tmp_path / "data", shards=2)
    broken = tmp_path / "data" / "train-00001-of-00002.parquet"
    data = Dataset.from_parquet(str(broken)).cast_column("image", Image(decode=False))
    data.map(lambda row: {"image": {"bytes": b"no image", "path": None}}).to_parquet(broken, batch_size=8)
    options = {"config": recipe, "dataset": str(tmp_path / "data" / "*.parquet"), "streaming": True, "max_steps": 40}
    [done] = forked.work_off(tmp_path, [{"name": "run", "options": options | {"fraction": 1.0}, "processes": 2}])
    said = [line for line in done["said"] if line.startswith("visreg pretrain: ")]
    assert done["codes"] == [3, 3] and len(said) == 2, done
    assert any("cannot be read" in line for line in said) and any("another process" in line for line in said), said
