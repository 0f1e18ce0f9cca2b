# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Runs that train on a part of a network: killed and resumed to the bit, sharded, pushed as model and adapter."""

import json

import pytest
import torch
from safetensors.torch import load_file

from helpers import forked
from visreg_hub_cards import push_run
from visreg_training.config import parse
from visreg_training.errors import UserError
from visreg_training.run_folder import RunFolder


pytestmark = [pytest.mark.cpu, pytest.mark.timeout(900)]


@pytest.mark.parametrize("flag", ["--layer_decay 0.8", "--freeze_blocks 1", "--lora_rank 2"])
def test_they_need_weights_to_start_from(flag):
    name, value = flag.split()
    with pytest.raises(UserError, match=f"{name[2:]} is for a run that starts from weights: give --initialize_from"):
        parse(["--dataset", "digits", "--output_dir", "out", name, value])


def test_adapted_runs_resume_exactly_and_push_the_adapter_too(recipe, tmp_path):
    """After kills and on shards, from the same start: what is frozen stays, and the merged model is the network."""
    pytest.importorskip("peft")
    shape = ("model", "patch_size", "image_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    begin = {"config": recipe, "max_steps": 2, "online_probe": False}
    start = {"initialize_from": str(tmp_path / "start"), **dict.fromkeys(shape)}
    short = begin | start | {"max_steps": 4, "save_every": 1, "log_every": 1}
    lora = short | {"lora_rank": 2, "layer_decay": 0.8}
    frozen = short | {"freeze_blocks": 1, "layer_decay": 0.5, "micro_batch_size": 4, "activation_checkpointing": True}
    jobs = [
        {"name": "start", "options": begin},
        {"name": "lora", "options": lora},
        {"name": "lora_killed", "options": lora, "kills": 1, "seed": 1},
        {"name": "frozen", "options": frozen},
        {"name": "frozen_resumed", "options": frozen, "copy_of": "frozen", "until": 3},
        {"name": "lora_sharded", "options": lora | {"max_steps": 2}, "processes": 2, "sharded": True},
    ]
    for done in forked.work_off(tmp_path, jobs):
        assert set(done["codes"]) == {0}, done
    for name, resumed in (("lora", "lora_killed"), ("frozen", "frozen_resumed")):
        assert forked.final_weights(tmp_path / name) == forked.final_weights(tmp_path / resumed)
    before, lora_after, frozen_after = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("start", "lora", "frozen")
    )
    moved = {name for name, tensor in before.items() if not torch.equal(frozen_after[name], tensor)}
    assert moved and not [name for name in moved if name.startswith(("embeddings", "encoder.layer.0"))]
    moved = {name for name, tensor in before.items() if not torch.equal(lora_after[name], tensor)}
    assert len(moved) == 12 and all("_proj.weight" in name or ".mlp.fc" in name for name in moved)
    for name in ("lora", "lora_sharded"):
        run = RunFolder(tmp_path / name)
        weights = load_file(run.model / "model.safetensors")
        adapter = load_file(run.adapter / "adapter_model.safetensors")
        stem = "base_model.model.encoder.layer.1.mlp.fc1.lora_"
        learned = adapter[f"{stem}B.weight"] @ adapter[f"{stem}A.weight"]
        torch.testing.assert_close(
            weights["encoder.layer.1.mlp.fc1.weight"] - before["encoder.layer.1.mlp.fc1.weight"], learned
        )
    pushed = {
        path for path, _size in push_run(tmp_path / "lora", "organization/name", license="mit", dry_run=True).files
    }
    assert {"model.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= pushed
    assert "as an adapter of [PEFT]" in (tmp_path / "lora" / "model" / "README.md").read_text()
    assert json.loads((tmp_path / "lora" / "adapter" / "adapter_config.json").read_text())["r"] == 2
