# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Backbones by name, and the configuration that the options make."""

import pytest

from visreg_training.config import (
    PretrainOptions,
    architecture_name,
    check_crops,
    check_shape_options,
    config_from,
    model_config,
)
from visreg_training.errors import UserError


def test_an_architecture_goes_by_its_name_only_if_it_has_its_sizes():
    assert architecture_name(model_config("vit_giant", 224)) == "vit_giant"
    assert architecture_name(model_config("vit_small", 224, patch_size=16, projection_size=64)) == "vit_small"
    assert architecture_name(model_config("vit_tiny", 16, hidden_size=64, num_attention_heads=4, patch_size=2)) is None


def test_options_replace_sizes_of_the_architecture():
    config = config_from(PretrainOptions(model="vit_tiny", hidden_size=64, num_attention_heads=4, drop_path_rate=0.0))
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (64, 256, 12)
    assert (config.image_size, config.drop_path_rate, config.projection_size) == (224, 0.0, 128)
    assert config_from(PretrainOptions(image_size=384)).image_size == 384


@pytest.mark.parametrize(
    "options, words",
    [
        ({"global_size": 100}, "global_size 100 is not divisible by the patch of 16: use 96 or 112"),
        ({"local_size": 8}, "local_size 8 is not divisible by the patch of 16: use 16 or 32"),
    ],
)
def test_views_that_patches_do_not_divide_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        check_crops(16, PretrainOptions(**options))
    check_crops(16, PretrainOptions(local_size=8, num_local=0))


def test_a_checkpoint_brings_its_architecture():
    given = frozenset({"patch_size", "model", "projection_size"})
    check_shape_options(PretrainOptions(given=given))
    with pytest.raises(UserError, match="leave model, patch_size out"):
        check_shape_options(PretrainOptions(initialize_from="released", given=given))
