# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The first cases of `make fuzz`, of a fixed seed; and that a fuzz that finds something says so."""

import subprocess
import sys
from pathlib import Path

import pytest


FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.mark.cpu
def test_mutated_files_are_one_line_and_change_nothing():
    command = [sys.executable, FUZZ, "--seed", "suite", "--minutes", "0.15", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "0 findings" in done.stdout and " cases in " in done.stdout
