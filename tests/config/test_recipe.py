# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Recipe first, then flags or keywords; every mistake is one line and exit code 2, before anything starts."""

import subprocess
import sys

import pytest
import torch
import yaml

from visreg_training.backbones import build_pretraining_model
from visreg_training.config import (
    PretrainOptions,
    add_pretrain_options,
    config_from,
    from_keywords,
    option_names,
    parse,
    training_schedule,
)
from visreg_training.config.architectures import check_shape_options
from visreg_training.config.recipe import RECIPES, parse_options, pretrain_parser, read_recipe, recipe_table
from visreg_training.errors import UserError
from visreg_training.parser import OneLineParser


OURS = sorted(RECIPES.glob("*.yaml"))


def parsed(*flags):
    return parse(["--dataset", "digits", "--output_dir", "out", *flags])


def recipe_of(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return parsed("--config", str(path))


def test_flags_override_the_recipe_and_numbers_are_numbers():
    options = parse(["--config", "digits", "--epochs", "3", "--learning_rate=1e-4", "--blur_probability", "0"])
    assert options.epochs == 3 and options.learning_rate == 1e-4
    assert options.blur_probability == 0 and options.dataset == "digits"
    assert parse(["--config", "digits"]).learning_rate == 2e-3  # YAML alone reads 2e-3 as a string


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_every_recipe_is_read_as_it_is_written(path, tmp_path):
    written = read_recipe(str(path))
    assert set(written) <= set(option_names())
    options = parse(["--config", str(path), "--dataset", "digits", "--output_dir", "out"])
    assert options.given == written.keys() | {"config", "dataset", "output_dir"}
    values = options.as_recipe()
    for name in written.keys() - {"dataset", "output_dir"}:
        number = isinstance(values[name], float) and isinstance(written[name], str)
        assert values[name] == (float(written[name]) if number else written[name]), name
    rest = {name: value for name, value in values.items() if name not in options.given}
    defaults = PretrainOptions().as_recipe()
    assert rest == {name: defaults[name] for name in rest}
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(values))
    assert parse(["--config", str(copy)]) == options


def test_recipes_by_known_values():
    base = parse(["--config", "vit_base_in1k"])
    assert (base.model, base.epochs, base.global_batch_size, base.learning_rate) == ("vit_base", 400, 128, 9e-4)
    assert (base.global_scale, base.num_slices, base.mixed_precision) == ((0.3, 1.0), 4096, "bf16")
    digits = parse(["--config", "digits"])
    assert (digits.hidden_size, digits.patch_size, digits.regularization_weight) == (64, 2, 0.6)
    assert (digits.flip_probability, digits.local_scale, digits.warmup_epochs) == (0.0, (0.2, 0.6), 2)
    assert digits.as_recipe()["local_scale"] == [0.2, 0.6]  # a recipe.yaml holds lists


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
        (["--global_scale", "0.9"], ["--global_scale", "2 arguments"]),
        (["--global_batch_size", "0"], ["global_batch_size must be above 0"]),
        (["--config", "nothing"], ["no recipe at 'nothing'", "digits"]),
        (["--config"], ["--config", "one argument"]),
        (["loose"], ["'loose' belongs to no option"]),
        (["--online_probe", "maybe"], ["--online_probe", "yes or no, not 'maybe'"]),
        (["--compile", "yes"], ["--compile", "must be one of auto, blocks, model, no, not 'yes'"]),
        (["--compile"], ["--compile", "expected one argument"]),
        (["--push_to_hub", "True"], ["push_to_hub needs --repo_id"]),
        (["--eval_dataset", "photos"], ["eval_dataset needs --eval_split"]),
        (["--repo_id", "a/b/c"], ["repo_id"]),
        (["--resume", "auto", "--overwrite"], ["choose one"]),
        (["--dataset", "none", "--output_dir="], ["output_dir is empty"]),  # a name like others there
        (["--batch_size", "8"], ["did you mean 'global_batch_size' or 'micro_batch_size' or 'base_batch_size'?"]),
        (["--lr", "1e-3"], ["did you mean 'lora_rank' or 'learning_rate'?"]),
        (["--blur_kernel", "3"], ["unknown option 'blur_kernel'"]),
    ],
)
def test_a_mistake_is_one_line_that_says_what_would_be_right(flags, words):
    with pytest.raises(UserError) as caught:
        parsed(*flags)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    "text, words",
    [
        ("lerning_rate: 1e-3", "unknown option 'lerning_rate' in .*recipe.yaml: did you mean 'learning_rate'"),
        ("epochs: many", "epochs: invalid float value: 'many'"),
        ("epochs: [1, 2]", r"epochs takes one value, not \[1, 2\]"),
        ("regularizer: dino", "regularizer.*sigreg.*'dino'"),
        ("global_scale: 0.5", "global_scale must be two numbers"),
        ("global_scale: [--push_to_hub, 1]", "global_scale.*'--push_to_hub'"),
        ("hue: 0.9", "hue must lie in"),
        ("- hue", "must hold 'option: value' lines"),
        ("hue: [", "recipe.yaml is not YAML: "),
        ("overwrite: true", "'overwrite' in .*recipe.yaml: a recipe does not hold it; give --overwrite with the"),
        ("resume: auto", "'resume' in .*: a recipe does not hold it; give --resume"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(text, words, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        recipe_of(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_what_looks_like_a_flag_in_a_recipe_is_a_value(tmp_path):
    assert recipe_of(tmp_path, "label_column: --push_to_hub").label_column == "--push_to_hub"


@pytest.mark.parametrize("flag", [["--epochs", "0"], ["--dataset="]])
def test_the_command_ends_with_code_2_and_one_line(flag):
    code = (
        "import sys; from visreg_training.config import parse; from visreg_training.errors import exit_codes\n"
        "with exit_codes('visreg pretrain'): parse(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "--config", "digits", *flag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and flag[0].strip("-=") in done.stderr


@pytest.mark.parametrize("flags", [["--eval_split", "none"], ["--eval_split=none"]])
def test_none_takes_back_what_a_recipe_sets(flags):
    start = ["--config", "digits", "--output_dir", "none", "--max_steps", "7", "--global_scale", "0.2", "1"]
    given = parse(start)
    assert (given.eval_split, given.max_steps) == ("test", 7)
    taken = parse([*start, *flags, "--max_steps", "none"])
    assert (taken.eval_split, taken.max_steps) == (None, None) and taken.global_scale == (0.2, 1.0)
    assert {"eval_split", "max_steps"} & taken.given == set() and taken.output_dir == "none"
    assert parse([*start, *flags, "--eval_split", "train"]).eval_split == "train"


def test_none_takes_back_what_has_a_default_too(tmp_path):
    options = parse(["--config", "digits", "--output_dir", "out", "--model", "none", "--epochs", "none"])
    assert (options.model, options.epochs) == ("vit_base", 100) and not {"model", "epochs"} & options.given
    assert parsed("--keep_best", "none").keep_best == "none"  # where it is a value
    own = from_keywords(config="digits", output_dir="out", model=None, num_slices=None)
    assert (own.model, own.num_slices) == ("vit_base", 4096) and own.eval_split == "test"
    assert recipe_of(tmp_path, "keep_best:\n").keep_best == "loss"


def test_the_warmup_of_a_recipe_follows_fewer_epochs():
    digits = ["--config", "digits", "--output_dir", "out"]
    assert parse(digits).warmup_epochs == 2
    full = parse(digits).epochs
    assert parse([*digits, "--epochs", str(full / 4)]).warmup_epochs == pytest.approx(0.5)
    assert parse([*digits, "--epochs", str(full * 4)]).warmup_epochs == 2
    assert parse([*digits, "--epochs", "1", "--warmup_epochs", "1"]).warmup_epochs == 1
    assert from_keywords(config="digits", output_dir="out", epochs=full / 2).warmup_epochs == pytest.approx(1)
    assert parsed("--epochs", "3").warmup_epochs == 5  # chosen later, with the rest


def test_a_checkpoint_that_is_given_brings_its_architecture_in_place_of_the_recipes(tmp_path):
    given = ["--dataset", "digits", "--output_dir", "out", "--initialize_from", "first"]
    options = parse(["--config", "own_images", *given])
    check_shape_options(options)
    assert options.local_size == 96
    with pytest.raises(UserError, match="leave patch_size out"):
        check_shape_options(parse(["--config", "own_images", *given, "--patch_size", "8"]))
    own = tmp_path / "recipe.yaml"  # of the run itself: to be run again
    own.write_text(yaml.safe_dump(options.as_recipe()))
    again = parse(["--config", str(own)])
    check_shape_options(again)
    assert again == options


def test_an_empty_value_of_a_recipe_keeps_the_default(tmp_path):
    options = recipe_of(tmp_path, "epochs:\neval_split:\nstreaming: null\n")
    assert (options.epochs, options.eval_split, options.streaming) == (100, None, None)
    assert options.given == {"config", "dataset", "output_dir"}


def test_a_recipe_says_nothing_about_the_folder_it_meets(tmp_path):
    """A run's own recipe deleted the run, where it had been started with --overwrite."""
    for flags in (["--overwrite"], ["--resume", "auto"]):
        assert not {"overwrite", "resume"} & parsed(*flags).as_recipe().keys()
    options = recipe_of(tmp_path, "overwrite: false\nresume: no\n")  # as earlier versions wrote them
    assert (options.overwrite, options.resume) == (False, "no") and not {"overwrite", "resume"} & options.given
    assert recipe_of(tmp_path, 'resume: "no"').resume == "no"


def test_output_is_a_name_for_the_folder_of_a_run_too():
    assert parse(["--dataset", "digits", "--output", "out"]) == parse(["--dataset", "digits", "--output_dir", "out"])


def test_keywords_are_those_of_a_recipe():
    options = from_keywords(dataset="digits", output_dir="out", epochs=1, global_scale=(0.1, 1), overwrite=True)
    assert options == parsed("--epochs", "1", "--global_scale", "0.1", "1", "--overwrite")
    assert options.given == {"dataset", "output_dir", "epochs", "global_scale", "overwrite"}
    digits = from_keywords(config="digits", eval_split=None, online_probe=False)
    assert digits == parse(["--config", "digits", "--eval_split", "none", "--no_online_probe"])
    assert "config" in digits.given and "eval_split" not in digits.given
    with pytest.raises(UserError, match="unknown option 'epoch' in the call: did you mean 'epochs'"):
        from_keywords(dataset="digits", output_dir="out", epoch=1)
    with pytest.raises(UserError, match="--output_dir is missing"):
        from_keywords(dataset="digits")


def test_yaml_reads_a_bare_no_as_false_and_it_still_means_no(tmp_path):
    options = recipe_of(tmp_path, "mixed_precision: no\nresume: no\ncompile: no\nonline_probe: no\n")
    assert (options.mixed_precision, options.resume) == ("no", "no")
    assert (options.compile, options.online_probe) == ("no", False)


@pytest.mark.parametrize(
    "flags, value",
    [(["--online_probe", "f"], False), (["--no_online_probe"], False), (["--online_probe"], True), ([], True)],
)
def test_a_switch_that_is_on_by_default_can_be_turned_off(flags, value):
    assert parsed(*flags).online_probe is value


def test_a_command_with_options_of_its_own():
    parser = OneLineParser("plan", "A plan.")
    parser.add_argument("--gpus", type=int, default=1, help="how many")
    add_pretrain_options(parser)
    options, own = parse_options(parser, ["--config", "digits", "--gpus", "2", "--epochs", "1"], needed=())
    assert (own.gpus, options.epochs, options.hidden_size) == (2, 1, 64) and "gpus" not in options.given
    text = parser.format_help()
    assert 0 < text.index("--gpus") < text.index("--config") < text.index("--model")
    with pytest.raises(UserError, match="argument --gpus: invalid int value: 'many'"):
        parse_options(parser, ["--gpus", "many"], needed=())


def test_the_help_shows_default_and_source():
    text = " ".join(pretrain_parser().format_help().split())
    for part in (
        "peak, AdamW (released recipe: 9e-4 for B/16) (default: 0.0009)",
        "area of a global crop, share of the image (paper: 0.3-1) (default: 0.3 1.0)",
        "--augment_backend {device,torchvision}",
        "dimension of the projections; default: the architecture's --projector_hidden_size",
    ):
        assert part in text, part


def test_the_table_of_recipes_names_an_architecture_only_where_it_is_one():
    lines = {line.split()[0]: line for line in recipe_table().splitlines()}
    assert lines["vit_base_in1k"].split()[1] == "vit_base" and "4 x 224 + 6 x 96" in lines["vit_base_in1k"]
    assert "4 x 64 " in lines["digits"] and "vit_tiny" not in lines["digits"]
    assert len(lines) == 1 + len(OURS)


@pytest.mark.parametrize(
    ("name", "epochs"),
    [("vit_base_in1k", 400), ("vit_base_in1k_100", 100), ("vit_large_in1k", 400), ("vit_large_in22k", 100)],
)
def test_the_papers_recipes_are_to_the_letter(name, epochs):
    options = parse(["--config", name])
    assert (options.slices, options.num_slices, options.epochs) == ("per_rank", 4096, epochs)
    assert options.initial_learning_rate_ratio == options.final_learning_rate_ratio == 1e-3
    assert options.warmup_epochs == 5
    schedule = training_schedule(options, 8, 1_281_167)
    assert schedule.slices == 8 * 4096 and schedule.slices_of_a_rank == 4096


def test_the_recipe_of_imagenette_is_that_of_the_release():
    options = parse(["--config", "vit_small_imagenette"])
    assert (options.dataset_config, options.projector_act, options.slices) == ("160px", "relu", "per_rank")
    assert (options.warmup_epochs, options.initial_learning_rate_ratio) == (1, 1e-3)
    with torch.device("meta"):
        projector = build_pretraining_model(config_from(options)).projector
    kinds = [type(layer).__name__ for layer in projector]
    assert kinds.count("ReLU") == 2 and "GELUActivation" not in kinds
