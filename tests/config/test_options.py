# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""An option is declared once, and everything that is known of it is derived from there."""

import ast
from dataclasses import FrozenInstanceError, dataclass, fields
from pathlib import Path

import pytest

import visreg_training
from visreg_training.config import PretrainOptions, free_on_resume, option_names, parse, recipe, shown_on_card
from visreg_training.data.options import ColorOptions, CropOptions, SourceOptions, SubsetOptions
from visreg_training.errors import UserError
from visreg_training.objective.options import ObjectiveOptions
from visreg_training.option import POSITIVE, about, declared, option, take


ROOT = Path(visreg_training.__file__).parent


@dataclass(frozen=True)
class WithOneMore(PretrainOptions):
    """One more option, declared in one place."""

    num_teachers: int = option(3, "how many (source: this test)", POSITIVE, free_on_resume=True, on_card=False)


def test_one_more_option_needs_one_place(monkeypatch, tmp_path):
    monkeypatch.setattr(recipe, "PretrainOptions", WithOneMore)
    file = tmp_path / "recipe.yaml"
    file.write_text("num_teachers: 7\n")
    given = ["--dataset", "digits", "--output_dir", "out"]
    options = parse(["--config", str(file), *given])
    assert options.num_teachers == options.as_recipe()["num_teachers"] == 7 and "num_teachers" in options.given
    assert parse([*given, "--num_teachers", "5"]).num_teachers == 5
    assert recipe.from_keywords(dataset="digits", output_dir="out", num_teachers=4).num_teachers == 4
    assert parse(given).num_teachers == 3
    with pytest.raises(UserError, match="num_teachers must be above 0, not -1"):
        parse([*given, "--num_teachers", "-1"])
    with pytest.raises(UserError, match="did you mean 'num_teachers'"):
        parse([*given, "--num_teacher", "1"])
    assert "how many (source: this test) (default: 3)" in " ".join(recipe.pretrain_parser().format_help().split())
    assert free_on_resume(WithOneMore) - free_on_resume() == {"num_teachers"}
    assert shown_on_card(WithOneMore) == shown_on_card()


def test_options_are_in_the_order_of_a_recipe():
    names = option_names()
    assert len(set(names)) == len(names)
    order = ["model", "dataset", "fraction", "eval_split", "num_global", "hue", "num_workers", "regularizer"]
    order += ["output_dir", "epochs", "learning_rate", "save_every", "on_collapse", "online_probe", "push_to_hub"]
    assert [name for name in names if name in order] == order


def test_what_decides_the_weights_is_bound_on_a_resume_and_shown():
    bound = {"model", "dataset", "fraction", "num_global", "hue", "regularizer", "num_slices", "seed", "epochs"}
    bound |= {"global_batch_size", "learning_rate", "mixed_precision", "initialize_from", "augment_backend"}
    assert bound <= shown_on_card() - free_on_resume()
    assert {"compile", "micro_batch_size", "eval_split"} <= shown_on_card() & free_on_resume()
    assert {"output_dir", "repo_id", "num_workers", "log_every"} <= free_on_resume() - shown_on_card()


def test_every_option_says_what_it_means_and_has_a_default_that_is_allowed():
    PretrainOptions()  # checks its values
    for spec in declared(PretrainOptions):
        assert len(about(spec)["help"]) > 3 and spec.default.__hash__ is not None, spec.name


def test_options_cannot_be_changed_but_replaced():
    options = PretrainOptions(epochs=3, given=frozenset({"epochs"}))
    with pytest.raises(FrozenInstanceError):
        options.epochs = 4
    changed = options.replace(epochs=4)
    assert (options.epochs, changed.epochs, changed.given) == (3, 4, {"epochs"})
    with pytest.raises(ValueError, match="epochs must be above 0, not 0"):
        options.replace(epochs=0)


def test_an_empty_word_is_no_value():
    """A run from `--initialize_from "$START"` without START is not the run that was meant."""
    with pytest.raises(UserError, match="initialize_from is empty: give a value, or leave it out"):
        parse(["--dataset", "digits", "--output_dir", "out", "--initialize_from", ""])


def test_a_part_takes_its_own_options():
    options = PretrainOptions(num_local=0, hue=0.2)
    assert take(CropOptions, options) == CropOptions(num_local=0) and take(ColorOptions, options).hue == 0.2
    assert options.resolutions() == [(4, 224)] and PretrainOptions().resolutions() == [(4, 224), (6, 96)]
    assert "blur_kernel" not in option_names() and "given" not in option_names()


def test_every_option_is_read_somewhere():
    """An option that nothing reads would do nothing."""
    groups = (
        SourceOptions,
        CropOptions,
        ColorOptions,
        SubsetOptions,
        ObjectiveOptions,
    )  # handed on to their parts as a whole
    read = {spec.name for kind in groups for spec in fields(kind)}
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        loads = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load))
        read |= {node.attr for node in loads}
    assert set(option_names()) <= read, set(option_names()) - read
