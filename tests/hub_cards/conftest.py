# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A tiny run folder as the loop leaves it, and a Hub on loopback."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import HfApi, constants
from PIL import Image

from helpers.loopback_hub import LoopbackHub
from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining, save_checkpoint


RECIPE = {
    "model": "vit_tiny", "dataset": "/home/ada/photos", "num_global": 2, "num_local": 0, "global_size": 16,
    "global_scale": [0.3, 1.0], "regularizer": "visreg", "regularization_weight": 0.6, "weight_decay": 0.05,
    "output_dir": "/home/ada/runs/first", "initialize_from": None, "seed": 7, "keep_last": 2, "private": False,
    "push_every": 3, "eval_images": 50000, "report_to": "none", "overwrite": False, "resume": "auto",
}  # fmt: skip
RECORD = {
    "plan": {
        "processes": 1, "global_batch_size": 256, "total_steps": 500, "steps_per_epoch": 5, "learning_rate": 0.002,
        "slices": 256,
    },
    "source": {
        "dataset": "org/pictures", "split": "train", "revision": "5" * 40, "fingerprint": "abc123",
        "num_examples": 1437, "num_classes": 10, "unreadable_files": [],
    },
    "held_out": {"dataset": "org/pictures", "split": "test", "revision": "5" * 40, "num_examples": 360},
    "model": {"name": "vit_tiny", "parameters": 123},
    "environment": {"python": "3.11.2", "torch": "2.14.1", "transformers": "5.23.0", "device": "x86_64"},
}  # fmt: skip
SUMMARY = {
    "knn_before": 0.801, "knn_after": 0.9722, "linear_before": 0.9, "linear_after": 0.981, "train_seconds": 75.0,
    "images_per_second": 1803.2, "images_seen": 128000, "steps": 500, "final_loss": 0.0734,
}  # fmt: skip


@pytest.fixture
def hub():
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def api(hub, monkeypatch):
    """A client in this process; the loopback Hub speaks LFS, not Xet."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """Not to be changed: `run` is a copy for each test."""
    torch.manual_seed(0)
    config = VISRegViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
        projector_hidden_size=16,
        projection_size=8,
    )
    model = VISRegViTForPreTraining(config).eval()
    run = tmp_path_factory.mktemp("runs") / "first"
    save_checkpoint(model.base_model, run / "model")
    save_checkpoint(model, run / "pretraining")
    checkpoint = run / "checkpoints" / "step-00000500"
    shutil.copytree(run / "pretraining", checkpoint)
    torch.save({"state": torch.ones(3)}, checkpoint / "optimizer.pt")
    (checkpoint / "state.json").write_text(json.dumps({"step": 500, "seconds": 75.0, "recipe": RECIPE}))
    write_records(run)
    Image.new("RGB", (60, 40), "white").save(run / "curves.png")
    (run / "metrics.jsonl").write_text('{"step": 1, "total": 0.5}\n')
    return run


def write_records(run: Path, recipe=RECIPE, record=RECORD, summary=SUMMARY) -> None:
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    (run / "run.json").write_text(json.dumps(record))
    (run / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "first"))


@pytest.fixture
def records():
    """(recipe, record, summary) to change, and the function that writes them into a run."""
    return json.loads(json.dumps([RECIPE, RECORD, SUMMARY])), write_records
