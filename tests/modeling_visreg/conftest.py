# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Small models for the tests of the model family: 3 blocks of width 32 at 32 px, patch 8."""

import pytest
import torch

from modeling_visreg import VISRegViTConfig


@pytest.fixture
def small_config():
    """Makes small configurations; keyword arguments replace fields."""

    def make(**fields) -> VISRegViTConfig:
        small = {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        }
        small |= {"projector_hidden_size": 24, "projection_size": 16}
        return VISRegViTConfig(**small | fields)

    return make


@pytest.fixture
def randomize():
    """Gives every weight a value of its own, so that a swap of two that start equal (biases, norms) shows."""

    def apply(model: torch.nn.Module) -> torch.nn.Module:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        return model

    return apply
