# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a GPU runs at toy sizes on a CPU, so that it works on the day that there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_part_of_the_gpu_benchmark_runs(tmp_path):
    pytest.importorskip("lightly")
    command = [sys.executable, "-m", "benchmarks.gpu", "--small", "--photos", "digits", "--workers", "1"]
    subprocess.run([*command, "--output", str(tmp_path)], cwd=Path(__file__).parents[1], check=True)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["side"] for row in found["steps"]] == ["ours, eager", "timm + lightly, eager"]
    assert found["pretrain"][0]["images_per_second"] > 0
    assert set(found["losses"]["rows"][0]["sides"]) >= {"ours", "ours, SIGReg", "lightly", "floor"}
    assert (tmp_path / "gpu.png").exists()
