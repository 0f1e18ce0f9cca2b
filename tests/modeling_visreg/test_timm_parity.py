# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Features equal timm's to 1e-5 in float32, with random weights, at native and other sizes; weights convert exactly.

The default run takes 6 blocks of ViT-L/14, the slow one all 24.
"""

import pytest
import timm
import torch

from modeling_visreg import VISRegViTModel, config_from_timm_state_dict, from_timm_state_dict, to_timm_state_dict


def timm_vit(name, native_size, depth=12):
    """A timm ViT whose every weight is random: timm starts biases and norms equal, which would hide swapped names."""
    with torch.device("meta"):
        model = timm.create_model(name, img_size=native_size, depth=depth, num_classes=0, dynamic_img_size=True)
    model = model.to_empty(device="cpu").eval()
    for parameter_name, parameter in model.named_parameters():
        around = 1.0 if "norm" in parameter_name and parameter_name.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, around, 0.03)
    return model


def converted(timm_model, **fields):
    state_dict = timm_model.state_dict()
    config = config_from_timm_state_dict(state_dict, **fields)
    model = VISRegViTModel.from_pretrained(None, config=config, state_dict=from_timm_state_dict(state_dict, config))
    return model.eval()


L14_SIZES = [(224, 224), (98, 98), (70, 154)]


@pytest.mark.parametrize(
    ("name", "depth", "native", "sizes"),
    [
        pytest.param("vit_small_patch8_224", 12, (128, 128), [(128, 128), (96, 96), (64, 120)], id="S/8"),
        pytest.param("vit_small_patch8_224", 12, (96, 64), [(96, 64), (64, 96)], id="S/8 native non-square"),
        pytest.param("vit_base_patch16_224", 12, (224, 224), [(224, 224), (96, 96), (64, 160)], id="B/16"),
        pytest.param("vit_large_patch14_224", 6, (224, 224), L14_SIZES, id="L/14, 6 blocks"),
        pytest.param("vit_large_patch14_224", 24, (224, 224), L14_SIZES, id="L/14", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_features_equal_timm(name, depth, native, sizes):
    theirs = timm_vit(name, native, depth)
    ours = converted(theirs, image_size=native)
    for size in sizes:
        images = torch.rand(1, 3, *size)
        output = ours(images, output_hidden_states=True)
        expected, blocks = theirs.forward_intermediates(
            images, indices=4, norm=True, return_prefix_tokens=True, output_fmt="NLC"
        )
        assert (output.last_hidden_state - expected).abs().max() <= 1e-5, size
        for hidden_state, (patches, cls_token) in zip(output.hidden_states[-4:], blocks, strict=True):
            normed = ours.layernorm(hidden_state)
            assert (normed - torch.cat((cls_token, patches), dim=1)).abs().max() <= 1e-5, size


def test_round_trip_is_identical():
    theirs = timm_vit("vit_tiny_patch16_224", (64, 64)).state_dict()
    config = config_from_timm_state_dict(theirs)
    back = to_timm_state_dict(from_timm_state_dict(theirs, config), config)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("name", "heads", "drop_path_rate", "projection_size"),
    [
        ("vit_small_patch8_224", 6, 0.1, 128),
        ("vit_base_patch16_224", 12, 0.1, 256),
        ("vit_large_patch14_224", 16, 0.1, 384),
        ("vit_huge_patch14_224", 16, 0.2, 426),
        ("vit_giant_patch14_224", 16, 0.3, 469),
    ],
)
def test_shapes_tell_the_configuration_of_the_papers_models(name, heads, drop_path_rate, projection_size):
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0)
    config = config_from_timm_state_dict(theirs.state_dict())
    assert config.num_attention_heads == heads == theirs.blocks[0].attn.num_heads
    assert (config.drop_path_rate, config.projection_size) == (drop_path_rate, projection_size)
    assert config.intermediate_size == theirs.blocks[0].mlp.fc1.out_features
    assert config.grid_size == theirs.patch_embed.grid_size and config.layer_norm_eps == theirs.norm.eps
    with torch.device("meta"):
        ours = VISRegViTModel(config).state_dict()
    assert {name: t.shape for name, t in from_timm_state_dict(theirs.state_dict(), config).items()} == {
        name: t.shape for name, t in ours.items()
    }


def test_drop_path_ramps_as_in_timm():
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, drop_path_rate=0.1)
    ours = converted(theirs)
    timm_rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in theirs.blocks]
    assert ours.encoder.drop_path_rates == pytest.approx(timm_rates)
