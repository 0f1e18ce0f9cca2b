# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What anybody may have written is read within bounds, and makes nothing but plain values."""

import os

import pytest

from visreg_training.bounded import parse_json, parse_yaml, read_text


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
MERGES = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 9)
)


def test_plain_values_come_as_they_are():
    assert parse_yaml("a: [1, 2.5, yes, null]\nb: &b {c: d}\ne: *b\n") == {
        "a": [1, 2.5, True, None],
        "b": {"c": "d"},
        "e": {"c": "d"},
    }
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}
    assert parse_yaml("") is None


@pytest.mark.parametrize("text", [BOMB, MERGES], ids=["aliases", "merges"])
def test_a_bomb_of_aliases_is_refused_before_it_grows(text):
    with pytest.raises(ValueError, match="stands for more than 100,000 values"):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10_000, "nested deeper"),
        ("- " * 10_000 + "x", "nested deeper"),
        ("a: &a [*a]", "holds itself"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("!!python/name:os.system", "could not determine a constructor"),
        ("a: *nowhere", "undefined alias"),
        ("a: 1\n\tb: 2", "cannot start any token"),
    ],
)
def test_what_is_no_plain_yaml_is_one_line(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "[1,", "nan(1)", "9" * 9000])
def test_what_is_no_json_is_one_line(text):
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        read_text(tmp_path / "pipe")
    with pytest.raises(OSError, match="Is a directory"):
        read_text(tmp_path)
    (tmp_path / "long").write_text("x" * 11)
    with pytest.raises(ValueError, match="11 bytes, more than the 10"):
        read_text(tmp_path / "long", largest=10)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_text(tmp_path / "binary")
    assert read_text(tmp_path / "long") == "x" * 11
