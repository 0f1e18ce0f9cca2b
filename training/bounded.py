# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Text, JSON and YAML that anybody may have written: read within bounds of size, depth and expansion.

A few hundred bytes of YAML can stand for gigabytes (aliases of aliases), nested brackets exhaust the stack, and a pipe
in the place of a file is waited for without end. What goes beyond the bounds is a ValueError of one line.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from .errors import one_line


LARGEST_TEXT = 16 << 20  # bytes
LARGEST_LOG = 1 << 30  # bytes of what a long run writes line by line
DEEPEST = 64  # lists and objects within each other
MOST_VALUES = 100_000  # of a YAML file, each alias counted with all that it stands for


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """The text of a regular file.

    Args:
        path: of the file.
        largest: bytes that it may have.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is a pipe or a device, larger, or not UTF-8.
    """
    with open(path, "rb", opener=without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file")
        if status.st_size > largest:
            raise ValueError(f"{path} has {status.st_size:,} bytes, more than the {largest:,} that are read")
        try:
            return file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {one_line(error, 120)}") from error


def without_waiting(path: str, flags: int) -> int:
    """Opens a pipe that nobody writes into at once; without the flag that waits without end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or nested deeper than `DEEPEST`.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:  # the parser's stack is far deeper, and not the same in every Python
        raise ValueError(f"it is nested deeper than {DEEPEST}") from error
    _check_depth(content)
    return content


def _check_depth(content: Any) -> None:
    """Raises ValueError for what would exhaust the stack of whoever walks through it."""
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(DEEPEST):
        parts = (part for one in level for part in (one.values() if isinstance(one, dict) else one))
        level = [part for part in parts if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {DEEPEST}")


def check_shape(content: Any, shape: Any, where: str) -> None:
    """Refuses a value of another type than is meant, in what anybody may have written. None is like a missing value.

    Args:
        content: what was read.
        shape: a type or a union of types; a dict, name -> shape, of the values that are looked at; [shape], a list.
        where: what it is, for the message.

    Raises:
        ValueError: "evaluation/knn.json: data.train is a str, not an object".
    """
    if content is None:
        return
    kind = dict if isinstance(shape, dict) else list if isinstance(shape, list) else shape
    if not isinstance(content, kind) or (isinstance(content, bool) and kind is not bool):
        raise ValueError(f"{where} is {_NAMES.get(type(content), 'a value')}, not {_name(kind)}")
    if isinstance(shape, dict) and isinstance(content, dict):
        for name, inner in shape.items():
            check_shape(content.get(name), inner, f"{where}.{name}" if ": " in where else f"{where}: {name}")
    elif isinstance(shape, list):
        for value in content:
            check_shape(value, shape[0], f"an item of {where}")


_NAMES = {dict: "an object", list: "a list", str: "text", bool: "yes or no", int: "a number", float: "a number"}


def _name(kind: Any) -> str:
    return _NAMES.get(kind, "a number")


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain values; a tag that would make an object of Python is refused.

    Raises:
        ValueError: it is none, nested deeper than `DEEPEST`, or stands for more than `MOST_VALUES` values.
    """
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"it has more than {LARGEST_TEXT:,} characters")
    try:
        loader = _BoundedLoader(text)  # which looks at the characters
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(one_line(error, 300)) from error


class _BoundedLoader(yaml.SafeLoader):
    """Counts while it composes, before any value is made: an alias counts as all that it stands for."""

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = 0
        self.sizes: dict[int, int] = {}  # values that a composed node stands for, by its id

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested deeper than {DEEPEST}")
        aliased = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if aliased and id(node) not in self.sizes:
            raise yaml.YAMLError("it holds itself")
        if not aliased:
            self.sizes[id(node)] = 1 + sum(self.sizes.get(id(child), 1) for child in _children(node))
        if self.sizes[id(node)] > MOST_VALUES:
            raise yaml.YAMLError(f"it stands for more than {MOST_VALUES:,} values")
        return node


def _children(node: Any) -> list[Any]:
    """The nodes right below one."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
