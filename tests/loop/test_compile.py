# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`--compile` traces one graph a resolution, whole, and no more however long the run is."""

import torch
from torch._dynamo.utils import counters

from visreg_training.pretrain import pretrain


RUN = {
    "dataset": "digits",
    "fraction": 0.05,
    "model": "vit_tiny",
    "patch_size": 2,
    "num_global": 2,
    "num_local": 4,
    "global_size": 16,
    "local_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "drop_path_rate": 0.2,
    "projector_hidden_size": 16,
    "projection_size": 8,
    "num_slices": 16,
    "global_batch_size": 16,
    "max_steps": 4,
    "log_every": 1,
    "num_workers": 0,
    "compile": True,
}


def test_two_resolutions_are_two_graphs(tmp_path, monkeypatch):
    compiled = torch.nn.Module.compile
    # Tracing is what is tested; generating code for it takes minutes.
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda *given, **options: compiled(*given, backend="eager", **options)
    )
    torch._dynamo.reset()
    counters.clear()
    pretrain(**RUN, output_dir=tmp_path / "run")
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
