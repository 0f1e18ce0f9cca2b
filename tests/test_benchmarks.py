# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks that need hours, or a GPU, run at toy sizes on a CPU, so that they work on the day that there is one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["cpu", "h100"])
def test_imagenette_goes_from_images_to_a_table_and_repeats_nothing(tmp_path, setting):
    pytest.importorskip("lightly")
    draws = np.random.default_rng(0)
    for split, count in (("train", 80), ("validation", 16)):
        for number in range(count):
            path = tmp_path / "photos" / split / ("dark", "light")[number % 2] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = draws.integers(0, 100, (170, 180, 3), dtype=np.uint8) + np.uint8(150 * (number % 2))
            Image.fromarray(noise).save(path)
    output = tmp_path / "out"
    command = [sys.executable, "-m", "benchmarks.imagenette", "--data", str(tmp_path / "photos"), "--output", output]
    command += ["--setting", setting, "--minutes", "0.05", "--batch", "8"]
    for _ in range(2):
        done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
    assert "s, 20-NN" not in done.stderr  # nothing was trained the second time
    for side in ("ours", "lightly"):
        found = json.loads((output / f"{side}-0.json").read_text())
        assert [point[1] for point in found["curve"]][::6] == [0, 8 * found["steps"]]
        assert found["after"]["linear"] == 1.0  # brightness tells the classes apart
        assert found["images_per_second"] == pytest.approx(8 * found["steps"] / found["seconds"])
    assert done.stdout == (output / "table.md").read_text()
    assert (output / "imagenette.png").stat().st_size > 10_000
