# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Flags made from a dataclass: types from annotations, defaults from the dataclass only, errors of one line."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from visreg_training.errors import UserError
from visreg_training.option import POSITIVE, option, take
from visreg_training.parser import OneLineParser, add_options, set_values


@dataclass(frozen=True)
class Options:
    epochs: float = option(100, "passes over the data, 100 % of it (paper: 100)", POSITIVE)
    rule: str = option("none", "how it is scaled", ("none", "linear"))
    pooling: str | None = option(None, "of tokens; default: the model's", ("cls", "mean"))
    steps: int | None = option(None, "updates; default: by epochs")
    scale: tuple[float, float] = option((0.3, 1.0), "share of the image")
    k: tuple[int, ...] = option((10, 20), "neighbors")
    sides: int | tuple[int, ...] | None = option(None, "of a square, or height and width")
    probe: bool = option(True, "measure")
    private: bool = option(False, "hide")
    streaming: bool | None = option(None, "stream; default: for a Hub id")
    output: Path | None = option(None, "file")
    kernel: int = 9  # no flag


def read(*flags, **recipe):
    parser = OneLineParser("test", "A test.")
    add_options(parser, Options, needed=("output",))
    set_values(parser, Options, recipe)
    return parser.parse_args(flags)


def test_what_is_not_given_is_absent_and_take_fills_in_the_defaults():
    assert vars(read()) == {}
    assert take(Options, read("--epochs", "3")) == Options(epochs=3.0)


@pytest.mark.parametrize(
    "flags, name, value",
    [
        (["--epochs=1e-1"], "epochs", 0.1),
        (["--steps", "7"], "steps", 7),
        (["--steps", "7", "--steps", "none"], "steps", None),
        (["--rule", "none"], "rule", "none"),
        (["--pooling", "none"], "pooling", None),
        (["--scale", "0.1", "1"], "scale", [0.1, 1.0]),
        (["--k", "1", "5", "20"], "k", [1, 5, 20]),
        (["--sides", "16"], "sides", [16]),
        (["--sides", "16", "32"], "sides", [16, 32]),
        (["--private"], "private", True),
        (["--private", "False"], "private", False),
        (["--probe", "no"], "probe", False),
        (["--no_probe"], "probe", False),
        (["--no-probe"], "probe", False),
        (["--streaming", "yes"], "streaming", True),
        (["--streaming", "none"], "streaming", None),
        (["--output", "none"], "output", Path("none")),
        (["--output=a-b"], "output", Path("a-b")),
    ],
)
def test_a_flag_is_read_by_the_annotation(flags, name, value):
    assert vars(read(*flags)) == {name: value}


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--epochs", "many"], "argument --epochs: invalid float value: 'many'"),
        (["--rule", "cubic"], "argument --rule: must be one of none, linear, not 'cubic'"),
        (["--pooling", "max"], "must be one of cls, mean, not 'max'"),
        (["--private", "perhaps"], "must be yes or no, not 'perhaps'"),
        (["--scale", "1"], "argument --scale: expected 2 arguments"),
        (["--streaming"], "argument --streaming: expected one argument"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["--kernel", "3"], "unrecognized arguments: --kernel 3"),
    ],
)
def test_a_mistake_is_one_line(flags, words):
    with pytest.raises(UserError) as caught:
        read(*flags)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_values_of_a_recipe_are_converted_like_flags_and_overridden_by_them():
    recipe = {"epochs": "2e-3", "rule": False, "private": False, "probe": "no", "scale": ["1e-1", 1], "steps": None}
    with pytest.raises(UserError, match="must be one of none, linear, not 'no'"):
        read(**recipe)
    read_back = vars(read("--steps", "3", **recipe | {"rule": "linear"}))
    assert read_back == {
        **{"epochs": 0.002, "rule": "linear", "private": False},
        **{"probe": False, "scale": [0.1, 1.0], "steps": 3},
    }
    assert vars(read("--probe", probe=False)) == {"probe": True}


@pytest.mark.parametrize(
    "recipe, words",
    [
        ({"epochs": [1, 2]}, "epochs takes one value, not"),
        ({"epochs": "many"}, "argument --epochs: invalid float value: 'many'"),
        ({"scale": ["low", 1]}, "scale: could not convert string to float: 'low'"),
        ({"scale": {"low": 1}}, "scale takes one value"),
        ({"epochs": "--private"}, "argument --epochs: invalid float value: '--private'"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(recipe, words):
    with pytest.raises(UserError) as caught:
        read(**recipe)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_help_shows_default_words_and_source():
    parser = OneLineParser("test", "A test.")
    add_options(parser, Options)
    text = " ".join(parser.format_help().split())
    for part in (
        "passes over the data, 100 % of it (paper: 100) (default: 100)",
        "--rule {none,linear} how it is scaled (default: none)",
        "--steps STEPS updates; default: by epochs --scale",
        "share of the image (default: 0.3 1.0)",
        "--probe [PROBE] measure (default: yes) --no_probe",
        "hide (default: no)",
    ):
        assert part in text, text
