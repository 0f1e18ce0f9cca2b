# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Sizes that cannot be are refused before anything is made of them, with the option and the number that fits."""

import pytest
import torch

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from modeling_visreg.configuration_visreg import LARGEST as LARGEST_OF_A_CONFIGURATION
from visreg_training.config import config_from, parse
from visreg_training.config.memory import check_memory, least_bytes, parameter_count
from visreg_training.config.options import LARGEST
from visreg_training.errors import UserError
from visreg_training.evaluation.protocols.finetune import FinetuneOptions
from visreg_training.evaluation.protocols.knn import KnnOptions
from visreg_training.evaluation.protocols.linear import LinearOptions
from visreg_training.machine import check_workers, usable_cpus


NEEDED = ["--dataset", "digits", "--output_dir", "out"]


def options_of(*words: str):
    return parse([*NEEDED, *words])


@pytest.mark.parametrize("sizes", [{}, {"qkv_bias": False, "num_channels": 5, "image_size": (32, 48)}])
def test_parameters_are_counted_exactly(sizes):
    config = VISRegViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=2, patch_size=8, intermediate_size=100,
        projector_hidden_size=33, projection_size=7, **sizes,
    )  # fmt: skip
    with torch.device("meta"):
        model = VISRegViTForPreTraining(config)
    assert parameter_count(config) == sum(parameter.numel() for parameter in model.parameters())


def test_the_bounds_of_a_run_are_those_of_a_configuration():
    assert {name: LARGEST_OF_A_CONFIGURATION[name] for name in LARGEST} == LARGEST


@pytest.mark.parametrize(
    "words, message",
    [
        (["--num_slices", "100000000"], "num_slices must be at most 1048576, not 100000000"),
        (["--hidden_size", "1000000"], "hidden_size must be at most 65536, not 1000000"),
        (["--num_hidden_layers", "100000"], "num_hidden_layers must be at most 1024, not 100000"),
        (["--seed", str(2**63)], f"seed must be at most {2**63 - 1}, not {2**63}"),
        (["--epochs", "inf"], "epochs must be a finite number, not inf"),
        (["--epochs", "nan"], "epochs must be a finite number, not nan"),
        (["--epochs", "1e300"], "epochs must be at most 1000000, not 1e+300"),
        (["--max_steps", "1000000000000"], "max_steps must be at most 999999999999, not 1000000000000"),
        (["--global_size", "1000000"], "global_size must be at most 65536, not 1000000"),
    ],
)
def test_what_no_run_has_is_refused_by_flag_and_by_recipe(tmp_path, words, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{words[0][2:]}: {words[1].replace('inf', '.inf').replace('nan', '.nan')}\n")
    for given in (words, ["--config", str(recipe)]):
        with pytest.raises(UserError) as refusal:
            options_of(*given)
        assert str(refusal.value) == message


def test_the_largest_seed_draws_numbers():
    assert options_of("--seed", str(2**63 - 1)).seed == 2**63 - 1


@pytest.mark.parametrize("kind", [KnnOptions, LinearOptions, FinetuneOptions])
def test_an_evaluation_has_the_same_bounds(kind):
    with pytest.raises(ValueError, match="seed must be at most 9223372036854775807"):
        kind(seed=2**63)
    for name, value in {"epochs": 10**9, "num_workers": 10**6}.items():
        if hasattr(kind, name):
            with pytest.raises(ValueError, match=f"{name} must be at most"):
                kind(**{name: value})


def test_workers_are_bound_by_the_cpus_that_a_process_may_use():
    most = max(32, 4 * usable_cpus())
    check_workers(most)
    with pytest.raises(UserError, match=f"num_workers must be at most {most} here, .* not {most + 1}"):
        check_workers(most + 1)


@pytest.mark.parametrize(
    "name, words",
    [
        ("hidden_size", ["--hidden_size", "16384", "--num_attention_heads", "8"]),
        ("num_hidden_layers", ["--num_hidden_layers", "1000"]),
        ("projector_hidden_size", ["--projector_hidden_size", "100000"]),
        ("projection_size", ["--projection_size", "1000000"]),
        ("image_size", ["--image_size", "65536"]),
        ("global_size", ["--global_size", "8192", "--image_size", "224"]),
        ("global_batch_size", ["--global_batch_size", "100000"]),
    ],
)
def test_a_run_that_cannot_fit_names_the_largest_value_that_does(name, words):
    options, room, processes = options_of(*words), 4 << 30, 2
    with pytest.raises(UserError) as refusal:
        check_memory(options, config_from, room, processes)
    message = str(refusal.value)
    assert message.startswith(f"{name} {getattr(options, name)}: ") and "there are 4.0 GiB" in message
    fits = int(message.rpartition(f"; {name} ")[2].removesuffix(" fits"))
    units = {"hidden_size": 8, "image_size": 16, "global_size": 16, "global_batch_size": 2}
    for value, within in ((fits, True), (fits + units.get(name, 1), False)):
        changed = options.replace(**{name: value})
        assert (least_bytes(changed, config_from(changed), processes) <= room) == within


def test_a_run_that_fits_or_whose_memory_is_unknown_is_let_be():
    check_memory(options_of(), config_from, 16 << 30, 1)
    check_memory(options_of("--hidden_size", "49152"), config_from, None, 1)


def test_of_several_sizes_that_are_too_large_all_are_named():
    options = options_of("--num_hidden_layers", "1000", "--hidden_size", "60000", "--global_batch_size", "1000000")
    with pytest.raises(UserError, match="smaller values of hidden_size, num_hidden_layers, global_batch_size fit"):
        check_memory(options, config_from, 4 << 30, 1)


def test_a_backbone_of_another_family_counts_by_its_projector():
    options = options_of("--projector_hidden_size", "100000")
    with pytest.raises(UserError, match=r"projector_hidden_size 100000: .*; projector_hidden_size \d+ fits"):
        check_memory(options, lambda _options: None, 4 << 30, 1)
