# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg` itself: its help, its version, and that a line which is only parsed loads nothing heavy."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from visreg_training.evaluation.protocols import get_protocol, protocol_names, protocol_titles


HEAVY = ("torch", "transformers", "datasets", "sklearn", "numpy", "PIL")
LINES = [
    "",
    "--version",
    "pretrain --help",
    "pretrain --list_recipes",
    "pretrain --dataset photos --output_dir out --epoch 3",  # a mistake
    "plan --help",
    "preview --help",
    "pack --help",
    "features --help",
    "search --help",
    "visualize --help",
    "evaluate --help",
    "visualize pca --help",
    "card --help",
    "push --help",
    "export --help",
    "convert --help",
    "analyze --help",
    "analyze collapse --help",
]
CODE = """
import sys
from visreg_training import cli
try:
    cli.main(sys.argv[1:])
finally:
    print("loaded", *[name for name in {heavy!r} if name in sys.modules])
"""


@pytest.mark.parametrize("line", LINES)
def test_what_only_parses_its_line_loads_no_torch(line):
    """It took 8 seconds to show a help, or to say that a flag is misspelled."""
    command = [sys.executable, "-c", CODE.format(heavy=HEAVY), *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *said, loaded = done.stdout.splitlines()
    assert loaded == "loaded", loaded
    assert done.returncode == (2 if "--epoch" in line.split() else 0), done.stderr
    assert said or "did you mean 'epochs'?" in done.stderr


def test_the_version_is_the_installed_one():
    done = subprocess.run([sys.executable, "-m", "visreg_training.cli", "--version"], capture_output=True, text=True)
    assert done.stdout == f"visreg {version('visreg')}\n"


def test_titles_that_are_read_off_the_files_are_those_of_the_protocols():
    assert protocol_titles() == {name: get_protocol(name).title for name in protocol_names()}
