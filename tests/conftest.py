# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several folders."""

import pytest
import torch

import modeling_visreg


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    """A VISReg ViT of 16 x 16 pixels with random weights, as a directory."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    config = modeling_visreg.VISRegViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, image_size=16, patch_size=4, drop_path_rate=0.5
    )
    return str(modeling_visreg.save_checkpoint(modeling_visreg.VISRegViTModel(config), folder))
