# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The configuration: defaults of the paper's ViT-B/16, round trip through disk, one clear line for a mistake."""

import json

import pytest

from modeling_visreg import VISRegViTConfig


def test_defaults_are_vit_b16():
    config = VISRegViTConfig()
    assert config.model_type == "visreg_vit"
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert (config.intermediate_size, config.patch_size, config.native_size) == (3072, 16, (224, 224))
    assert (config.layer_norm_eps, config.qkv_bias, config.hidden_act) == (1e-6, True, "gelu")
    assert (config.drop_path_rate, config.projector_hidden_size, config.projection_size) == (0.1, 2048, 256)
    assert config.grid_size == (14, 14)


def test_round_trip_keeps_every_field(tmp_path, small_config):
    config = small_config(image_size=(16, 40), out_indices=[1, 3], intermediate_size=48, num_labels=5)
    config.save_pretrained(tmp_path)
    loaded = VISRegViTConfig.from_pretrained(tmp_path)
    assert loaded.native_size == (16, 40) and loaded.grid_size == (2, 5)
    assert loaded.out_features == ["stage1", "stage3"]
    ignored = {"transformers_version", "_name_or_path", "image_size"}
    assert {k: v for k, v in loaded.to_dict().items() if k not in ignored} == {
        k: v for k, v in config.to_dict().items() if k not in ignored
    }


def test_saved_config_names_every_auto_class(tmp_path, small_config):
    small_config().save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map == {
        "AutoConfig": "configuration_visreg.VISRegViTConfig",
        "AutoModel": "modeling_visreg.VISRegViTModel",
        "AutoBackbone": "modeling_visreg.VISRegViTBackbone",
        "AutoModelForPreTraining": "modeling_visreg.VISRegViTForPreTraining",
        "AutoModelForImageClassification": "modeling_visreg.VISRegViTForImageClassification",
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 5}, r"num_attention_heads must divide hidden_size; got 5 heads for a width of 32"),
        ({"image_size": 30}, r"patch_size must divide image_size; got patches of 8 for 30 x 30 pixels"),
        ({"image_size": (32, 30)}, r"patch_size must divide image_size; got patches of 8 for 32 x 30 pixels"),
        ({"image_size": [32, 32, 3]}, r"image_size is an int or \(height, width\) in pixels"),
        ({"image_size": 0}, r"image_size must be from 1 to 65536; got 0"),
        ({"num_hidden_layers": 0}, r"num_hidden_layers must be from 1 to 1024; got 0"),
        ({"num_hidden_layers": 10**6}, r"from 1 to 1024; got 1000000"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must be in \[0, 1\); got 1.0"),
        ({"out_features": ["stage9"]}, r"out_features must be a subset of stage_names"),
    ],
)
def test_mistakes_are_named(small_config, fields, message):
    with pytest.raises(ValueError, match=message):
        small_config(**fields)
