# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Recipes (YAML), flags and keywords become `PretrainOptions`: a recipe first, then what overrides it.

`none` (null, None) takes back what a recipe sets (`--eval_split none`, `--model none`).
An unknown key or a value out of range stops before anything starts, in one line.
"""

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..bounded import parse_yaml, read_text
from ..errors import UserError, one_line, setting_up
from ..parser import OneLineParser, add_options, as_word, set_values
from ..run_folder import Json
from .architectures import ARCHITECTURES, SHAPE_OPTIONS
from .options import NEEDED, PretrainOptions, checked, option_names, outside_recipes


RECIPES = Path(__file__).parent.parent / "recipes"
_LENGTH = {"epochs": PretrainOptions.epochs, "warmup_epochs": PretrainOptions.warmup_epochs}


def parse(argv: Sequence[str], needed: Iterable[str] = NEEDED) -> PretrainOptions:
    """The options of a command line of `visreg pretrain`; `needed` names what may not be left out.

    Raises:
        UserError: unknown option, wrong type, value out of range.
    """
    options, _own = parse_options(pretrain_parser(), argv, needed)
    return options


def from_keywords(needed: Iterable[str] = NEEDED, /, **options: Any) -> PretrainOptions:
    """The options of a call from Python: those of a recipe by name, and `config`, a recipe that they override.

    Raises:
        UserError: unknown option, wrong type, value out of range.
    """
    config = options.pop("config", None)
    check_names(options, "the call")
    parser = pretrain_parser()
    if config is not None:
        _set_recipe(parser, adapted(read_recipe(str(config)), options))
    _set_recipe(parser, options)
    given = {} if config is None else {"config": config}
    return _from_namespace(vars(parser.parse_args([])) | given, needed)


def pretrain_parser() -> OneLineParser:
    """The parser of `visreg pretrain`."""
    parser = OneLineParser("pretrain", "Train a ViT on images with the VISReg objective.")
    parser.add_argument("--list_recipes", action="store_true", help="print the recipes as a table and end")
    add_pretrain_options(parser, output="output_dir")
    return parser


def add_pretrain_options(parser: argparse.ArgumentParser, output: str | None = None) -> None:
    """Add all options of `visreg pretrain`, after those that the command has of its own; `output` as `add_options`."""
    group = parser.add_argument_group("options of `visreg pretrain`")
    group.add_argument(
        "--config",
        default=argparse.SUPPRESS,
        help="recipe: a YAML file, or one of ours by name; flags override it",
    )
    add_options(group, PretrainOptions, needed=NEEDED, take_back=True, output=output)


def parse_options(
    parser: argparse.ArgumentParser, argv: Sequence[str], needed: Iterable[str] = NEEDED
) -> tuple[PretrainOptions, argparse.Namespace]:
    """Parse with a parser that `add_pretrain_options` has extended; the namespace holds the command's own arguments.

    Raises:
        UserError: as `parse`.
    """
    namespace, unknown = parser.parse_known_args(argv)
    for flag in unknown:
        if flag.startswith("--"):
            check_names([flag[2:].partition("=")[0]], "the command")
        raise UserError(f"'{flag}' belongs to no option")
    if "config" in namespace:
        _set_recipe(parser, adapted(read_recipe(namespace.config), vars(namespace)))
        namespace = parser.parse_args(argv)
    return _from_namespace(vars(namespace), needed), namespace


def read_recipe(name: str) -> Json:
    """The keys of a recipe, checked.

    Raises:
        UserError: there is none, it is no YAML, a key is no option, or one that belongs to the command.
    """
    path = recipe_path(name)
    try:
        content = parse_yaml(read_text(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error
    except ValueError as error:
        raise UserError(f"{path} is not YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold 'option: value' lines")
    check_names(content, str(path))
    for name, default in outside_recipes().items():
        value = content.pop(name, None)
        if value is not None and as_word(value) != as_word(default):
            raise UserError(f"'{name}' in {path}: a recipe does not hold it; give --{name} with the command")
    return content


def adapted(recipe: Json, given: Json) -> Json:
    """A recipe beside the options that override it, where these say something of others.

    A checkpoint that is given brings its architecture, in place of the recipe's. Fewer epochs than the recipe's
    shorten its warmup by the same factor, unless one is given.
    """
    if given.get("initialize_from") is not None:
        recipe = {name: value for name, value in recipe.items() if name not in (*SHAPE_OPTIONS, "from_scratch")}
    elif given.get("model", next(iter(ARCHITECTURES))) not in ARCHITECTURES:
        recipe = {name: value for name, value in recipe.items() if name not in SHAPE_OPTIONS}
    if given.get("epochs") is None or given.get("warmup_epochs") is not None:
        return recipe
    try:
        epochs, warmup = (float(recipe.get(name) or default) for name, default in _LENGTH.items())
        share = float(given["epochs"]) / epochs
    except (TypeError, ValueError):  # no number: what reads the values says so
        return recipe
    return recipe | {"warmup_epochs": warmup * share} if 0 < share < 1 else recipe


def recipe_path(name: str) -> Path:
    """A file by path, or one of our recipes by name.

    Raises:
        UserError: there is neither.
    """
    ours = RECIPES / f"{name}.yaml"
    path = Path(name)
    if path.is_file() or ours.is_file():
        return path if path.is_file() else ours
    known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
    raise UserError(f"no recipe at '{name}': give a YAML file or one of {known}")


def check_names(names: Iterable[str], where: str) -> None:
    """Raises UserError for a name that is no option, with the nearest that are."""
    known = option_names(PretrainOptions)
    for name in names:
        if name not in known:
            near = " or ".join(f"'{one}'" for one in near_names(str(name), known))
            hint = f"did you mean {near}?" if near else "`visreg pretrain --help` lists the options"
            raise UserError(f"unknown option '{name}' in {where}: {hint}")


def near_names(name: str, known: list[str]) -> list[str]:
    """What somebody may have meant: names that contain all words of this one (`batch_size`), else have its initials
    (`lr`), else the one that is spelled most like it.
    """
    words = set(name.split("_"))
    return (
        [one for one in known if words <= set(one.split("_"))]
        or [one for one in known if "".join(word[0] for word in one.split("_")) == name]
        or difflib.get_close_matches(name, known, n=1)
    )


def recipe_table() -> str:
    """Our recipes, one line each."""
    lines = [
        f"{'recipe':<22} {'model':<10} {'data':<24} {'views':<16} {'batch':>5} {'epochs':>6} {'lambda':>6} {'lr':>8}"
    ]
    for path in sorted(RECIPES.glob("*.yaml")):
        recipe = from_keywords((), config=path)
        views = " + ".join(f"{count} x {side}" for count, side in recipe.resolutions())
        lines.append(
            f"{path.stem:<22} {recipe.backbone_size():<10} {recipe.dataset or 'your own':<24} {views:<16} "
            f"{recipe.global_batch_size:>5} {recipe.epochs:>6g} {recipe.regularization_weight:>6g} "
            f"{recipe.learning_rate:>8.1e}"
        )
    return "\n".join(lines)


def _set_recipe(parser: argparse.ArgumentParser, recipe: Json) -> None:
    """Make the values of a recipe the parser's defaults; an empty one takes back what was set before."""
    set_values(parser, PretrainOptions, {name: value for name, value in recipe.items() if value is not None})
    parser.set_defaults(**{name: None for name, value in recipe.items() if value is None and name not in NEEDED})


def _from_namespace(values: Json, needed: Iterable[str]) -> PretrainOptions:
    """Options from what was given; what `none` took back was not."""
    chosen = {name: values[name] for name in option_names(PretrainOptions) if values.get(name) is not None}
    chosen = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
    given = frozenset(chosen) | ({"config"} & values.keys())
    with setting_up():  # a value out of range
        return checked(PretrainOptions(**chosen, given=given), needed)
