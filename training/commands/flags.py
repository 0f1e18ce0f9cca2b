# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One flat command line from several options dataclasses, and these back from what was parsed."""

import dataclasses
from argparse import Namespace
from collections.abc import Iterable
from typing import Any, TypeVar

from ..option import take
from ..parser import OneLineParser, add_options


T = TypeVar("T")


def flat_parser(command: str, title: str, *kinds: type, needed: Iterable[str] = ()) -> OneLineParser:
    """A parser with the options of all `kinds`; one that several share stands once, as the first has it.

    The help lists those of the last first.
    """
    parser = OneLineParser(command, title)
    add_options(parser, dataclasses.make_dataclass("Flags", [], bases=kinds, frozen=True), needed)
    return parser


def add_license(parser: OneLineParser, help: str) -> None:
    """The flags of a license of weights, which take every command that writes a card."""
    parser.add_argument("--license", help=f"of the weights, as the Hub writes it{help}")
    parser.add_argument("--license_name", help="with --license other: its name, as acme-1.0")
    parser.add_argument("--license_link", help="with --license other: the address of its text")


def parse(parser: OneLineParser, argv: list[str], needed: Iterable[str] = ()) -> Namespace:
    """What the user gave.

    Raises:
        UserError: an option of `needed` is missing, or a flag is none.
    """
    given = parser.parse_args(argv)
    if missing := [f"--{name}" for name in needed if getattr(given, name, None) is None]:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return given


def part(kind: type[T], given: Namespace, **more: Any) -> T:
    """The options `kind` with what the user gave: sequences as tuples."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(given).items()}
    return take(kind, Namespace(**values), **more)
