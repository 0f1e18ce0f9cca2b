# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The example runs as a user runs it, and what it prints is true."""

import re
import subprocess
import sys
from pathlib import Path


EXAMPLE = Path(__file__).parents[2] / "examples" / "objective_in_your_own_loop.py"


def test_the_example_learns():
    result = subprocess.run([sys.executable, str(EXAMPLE), "120"], capture_output=True, text=True, check=True)
    totals = [float(total) for total in re.findall(r"total (\d+\.\d+)", result.stdout)]
    assert totals[-1] < 0.8 * totals[0]
    accuracy = float(re.search(r"(\d\.\d+)$", result.stdout.strip()).group(1))
    assert accuracy > 0.85
