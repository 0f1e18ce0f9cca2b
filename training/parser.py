# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The command line: one parser class for all subcommands, and flags made from an options dataclass.

    parser = OneLineParser("evaluate knn", "accuracy of the nearest neighbors")
    add_options(parser, KnnOptions)
    options = take(KnnOptions, parser.parse_args(argv))   # `take` and `option` are those of option.py

A flag that is not given leaves no attribute, so that the dataclass is the only place of a default, and the namespace
holds what the user chose and nothing else.
"""

import argparse
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from .errors import UserError, one_line
from .option import about, declared


class OneLineParser(argparse.ArgumentParser):
    """ArgumentParser that raises UserError in place of printing its usage, and takes no abbreviated options.

    Hyphens in the name of a flag are read as underscores: `--learning-rate` is `--learning_rate`.

    Args:
        command: "pretrain" of `visreg pretrain`.
        description: one line.
    """

    def __init__(self, command: str, description: str, **kwargs: Any):
        super().__init__(prog=f"visreg {command}", description=description, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(one_line(ValueError(message)))

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args([_underscored(word) for word in given], namespace)


def add_options(
    parser: Any, kind: type, needed: Iterable[str] = (), take_back: bool = False, output: str | None = None
) -> None:
    """Add a flag for each `option` of a dataclass.

    A bool is a flag with or without a value (`--private`, `--private no`), with `--no_` in front too if it is on by
    default. `none` stands for None, where the annotation allows it.

    Args:
        parser: an ArgumentParser or a group of one.
        kind: the dataclass. Annotations may be bool, int, float, str, Path, a tuple of one type, one or several as
            `int | tuple[int, ...]`, or `| None` of these.
        needed: options that default to None and must have a value in the end: `none` is a word like others there.
        output: name of the option that `--output`, the name that commands share, stands for as well.
        take_back: `none` stands for None everywhere, for a caller that puts the default in its place.
    """
    annotations = typing.get_type_hints(kind)
    for spec in declared(kind):
        scalar, count, optional = _parts(annotations[spec.name])
        text = about(spec)["help"] + ("" if spec.default is None else f" (default: {_shown(spec.default)})")
        settings: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        words = about(spec)["values"] if isinstance(about(spec)["values"], tuple) else None
        settings["type"] = _reader(scalar, words, (optional or take_back) and spec.name not in needed)
        if count is not None:
            settings["nargs"] = count
        if words:
            settings["metavar"] = "{" + ",".join(words) + "}"
        if scalar is bool and not optional:
            settings |= {"nargs": "?", "const": True}
        more = ["--output"] if spec.name == output else []
        parser.add_argument(f"--{spec.name}", *more, **settings)
        if spec.default is True:
            parser.add_argument(
                f"--no_{spec.name}",
                dest=spec.name,
                action="store_false",
                default=argparse.SUPPRESS,
                help=f"the same as --{spec.name} no",
            )


def set_values(parser: argparse.ArgumentParser, kind: type, values: dict[str, Any]) -> None:
    """Make `values` (of a recipe, or keywords) the parser's defaults, which flags then override.

    Values may be strings: argparse converts them as it converts flags. YAML reads 2e-3 as a string and `no` as False.

    Raises:
        UserError: a list for an option that takes one value, or an item of it that is no number.
    """
    annotations = typing.get_type_hints(kind)
    for name, value in values.items():
        scalar, count, _optional = _parts(annotations[name])
        if isinstance(value, list | tuple | dict) and (count is None or isinstance(value, dict)):
            raise UserError(f"{name} takes one value, not {value}")
        if count is None or value is None:
            parser.set_defaults(**{name: as_word(value)})
            continue
        try:
            items = [scalar(as_word(item)) for item in (value if isinstance(value, list | tuple) else [value])]
        except ValueError as error:
            raise UserError(f"{name}: {one_line(error)}") from error
        parser.set_defaults(**{name: items})


def boolean(word: str) -> bool:
    """The value of a word for yes or no, in either case.

    Raises:
        argparse.ArgumentTypeError: it is another one.
    """
    if word.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if word.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"must be yes or no, not {word!r}")


def _underscored(word: str) -> str:
    """`--a-b=c-d` -> `--a_b=c-d`."""
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if name.startswith("--") else word


def _parts(annotation: Any) -> tuple[Any, int | str | None, bool]:
    """(type of one value, how many values as argparse's `nargs`, whether None is allowed) of an annotation."""
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if typing.get_origin(annotation) is typing.Union:
        members = typing.get_args(annotation)
    optional = type(None) in members
    inner, *several = [member for member in members if member is not type(None)]
    inner = several[0] if several else inner  # `int | tuple[int, ...]`: one, or several
    if typing.get_origin(inner) is not tuple:
        return inner, None, optional
    items = typing.get_args(inner)
    return items[0], "+" if items[-1] is Ellipsis else len(items), optional


def _reader(scalar: Any, words: tuple[str, ...] | None, optional: bool) -> Callable[[str], Any]:
    """What turns the word of a flag into the value of an option."""
    convert = boolean if scalar is bool else scalar

    def read(word: str) -> Any:
        if optional and word == "none" and word not in (words or ()):
            return None
        value = convert(word)
        if words and value not in words:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(words)}, not {word!r}")
        return value

    read.__name__ = convert.__name__  # argparse says "invalid float value"
    return read


def as_word(value: Any) -> str:
    """A value as it would stand behind a flag."""
    words = {True: "yes", False: "no", None: "none"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _shown(value: Any) -> str:
    """A default in a help text."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else as_word(value)
