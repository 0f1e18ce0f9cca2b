# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Every family of vision models that a run can start from: what its layers are, and what its feature is."""

import pytest

from tests.helpers.tiny_backbones import FAMILIES, TIMM, tiny_model, tiny_timm
from visreg_training.backbones import Backbone, TimmBackbone, TransformersBackbone


# Blocks of each, where they are not the three of a plain ViT.
BLOCKS = {"DINOv3ConvNext": 5, "ConvNext": 5, "ResNet": 5, "Swin": 4, "convnext_atto": 5, "resnet18": 4}


def wrapped(family: str) -> Backbone:
    """The interface around a tiny random model."""
    if family in TIMM:
        return TimmBackbone(family, tiny_timm(family))
    return TransformersBackbone(family, tiny_model(family), (32, 32), (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("family", [*FAMILIES, *TIMM])
def test_every_parameter_has_a_layer(family):
    """The embedding is layer 0, a block's parameters are of its layer, and what normalizes the feature is the last."""
    backbone = wrapped(family)
    blocks = backbone.blocks()
    assert len(blocks) == BLOCKS.get(family, 3)
    names = {id(parameter): name for name, parameter in backbone.module.named_parameters()}
    layers = {name: backbone.layer_of(name) for name in names.values()}
    for number, block in enumerate(blocks, 1):
        assert {layers[names[id(parameter)]] for parameter in block.parameters()} == {number}
    first = next(iter(layers))
    assert layers[first] == 0 and sorted(set(layers.values()))[: len(blocks) + 1] == list(range(len(blocks) + 1))
    after = {name for name, layer in layers.items() if layer == len(blocks) + 1}
    assert all(name.startswith(("layernorm", "layer_norm", "norm", "head", "post_", "pooler")) for name in after)
    assert bool(after) != family.lower().startswith("resnet")
