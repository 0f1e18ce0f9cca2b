# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Options: recipe first, then flags; every mistake is one line and exit code 2, before anything starts."""

import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import visreg_training
from visreg_training.data import ColorOptions, MultiCrop
from visreg_training.errors import UserError
from visreg_training.loop.assembly import make_views
from visreg_training.loop.config import RECIPES, as_flags, option_names, parse, recipe_table


ROOT = Path(visreg_training.__file__).parent


def parsed(*flags):
    return parse(["--dataset", "digits", "--output_dir", "out", *flags])


def test_flags_override_the_recipe_and_numbers_are_numbers():
    arguments = parse(["--config", "digits", "--epochs", "3", "--learning_rate=1e-4", "--blur_probability", "0"])
    assert arguments.run.epochs == 3 and arguments.run.learning_rate == 1e-4
    assert arguments.data.blur_probability == 0 and arguments.data.dataset == "digits"
    assert parse(["--config", "digits"]).run.learning_rate == 2e-3  # YAML alone reads 2e-3 as a string


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_parses_and_survives_a_round_trip(recipe, tmp_path):
    arguments = parse(["--config", str(recipe), "--dataset", "digits", "--output_dir", "out"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(arguments.as_recipe()))
    assert parse(["--config", str(copy)]) == arguments


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--epoch", "3"], ["epoch", "did you mean 'epochs'"]),
        (["--frobnicate", "3"], ["unknown option 'frobnicate'", "--help"]),
        (["--epochs", "many"], ["--epochs", "many"]),
        (["--regularizer", "dino"], ["dino", "sigreg", "barlow"]),
        (["--hue", "0.7"], ["hue must lie in [0, 0.5], not 0.7"]),
        (["--regularization_weight", "1.5"], ["regularization_weight", "[0, 1]"]),
        (["--global_scale", "0.9", "0.3"], ["global_scale", "low <= high"]),
        (["--global_batch_size", "0"], ["global_batch_size must be above 0"]),
        (["--config", "nothing"], ["no recipe at 'nothing'", "digits"]),
        (["loose"], ["'loose' belongs to no option"]),
        (["--push_to_hub", "True"], ["push_to_hub needs --repo_id"]),
        (["--repo_id", "a/b/c"], ["repo_id"]),
        (["--resume", "auto", "--overwrite"], ["choose one"]),
    ],
)
def test_a_mistake_is_one_line_that_says_what_would_be_right(flags, words):
    with pytest.raises(UserError) as caught:
        parsed(*flags)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_key_of_a_recipe_is_named(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("dataset: digits\nlerning_rate: 1e-3\n")
    with pytest.raises(UserError, match=r"unknown option 'lerning_rate' in .*did you mean 'learning_rate'"):
        parse(["--config", str(recipe)])


def test_the_command_ends_with_code_2_and_one_line():
    command = [sys.executable, "-m", "visreg_training.pretrain", "--config", "digits", "--epoch", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and "did you mean 'epochs'" in done.stderr


def test_flags_say_what_a_recipe_says():
    assert as_flags({"epochs": 2, "global_scale": [0.1, 1], "compile": False, "resume": None}) == [
        *("--epochs", "2", "--global_scale", "0.1", "1", "--compile", "no")
    ]


@pytest.mark.parametrize("flags", [["--eval_split", "none"], ["--eval_split=none"], as_flags({"eval_split": None})])
def test_none_takes_back_what_a_recipe_sets(flags):
    place = ["--config", "digits", "--output_dir", "none"]
    given = parse([*place, "--max_steps", "7", "--global_scale", "0.2", "1"])
    assert (given.data.eval_split, given.run.max_steps) == ("test", 7)
    taken = parse([*place, "--max_steps", "7", "--global_scale", "0.2", "1", *flags, "--max_steps", "none"])
    assert (taken.data.eval_split, taken.run.max_steps) == (None, None) and taken.data.global_scale == [0.2, 1.0]
    assert {"eval_split", "max_steps"} & taken.given == set() and taken.run.output_dir == "none"
    with pytest.raises(UserError, match="num_slices"):  # has a value always
        parse([*place, "--num_slices", "none"])


def test_every_option_is_read_somewhere():
    """An option that nothing reads would do nothing."""
    read = set()
    for path in [ROOT / "pretrain.py", *(ROOT / "loop").glob("*.py"), *(ROOT / "commands").glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if path.stem == "assembly":  # make_objective hands its whole group on
            read |= {"regularizer", "regularization_weight", "scale_weight", "shape_weight", "center_weight"}
            read |= {"num_slices", "slices", "statistics", "eps"}
            read |= {spec.name for kind in (MultiCrop, ColorOptions) for spec in fields(kind)}  # shared_options
    assert set(option_names()) <= read, set(option_names()) - read


def test_the_augmentation_is_what_the_options_say():
    given = {"num_local": 3, "local_scale": [0.1, 0.2], "rotation": 5.0, "hue": 0.05, "solarize_probability": 0.3}
    views = make_views(parsed(*as_flags(given | {"augment_backend": "torchvision"})).data)
    assert views.multi_crop == make_views(parsed(*as_flags(given)).data)
    made = vars(views.multi_crop) | vars(views.options)
    assert {name: made[name] for name in given} == given and made["num_global"] == 4


def test_yaml_reads_a_bare_no_as_false_and_it_still_means_no(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("dataset: digits\noutput_dir: out\nmixed_precision: no\nresume: no\ncompile: no\n")
    arguments = parse(["--config", str(recipe)])
    assert (arguments.run.mixed_precision, arguments.run.resume, arguments.model.compile) == ("no", "no", False)


def test_the_table_of_recipes_names_an_architecture_only_where_it_is_one():
    lines = {line.split()[0]: line for line in recipe_table().splitlines()}
    assert lines["vit_base_in1k"].split()[1] == "vit_base" and "4 x 224 + 6 x 96" in lines["vit_base_in1k"]
    assert "4 x 64 " in lines["digits"] and "vit_tiny" not in lines["digits"]
    assert len(lines) == 1 + len(list(RECIPES.glob("*.yaml")))
