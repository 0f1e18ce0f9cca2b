# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`--compile` traces one graph a resolution, whole, and no more however long the run is; what it makes trains."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from packaging.version import Version
from torch._dynamo.utils import counters

from helpers import forked
from visreg_training.pretrain import pretrain


pytestmark = [
    pytest.mark.cpu,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        Version(torch.__version__) < Version("2.8"), reason="--compile needs torch 2.8: 2.6 cannot trace transformers"
    ),
]

RUN = forked.SMALL | {"eval_split": None, "max_steps": 4, "log_every": 1, "compile": True}


def test_two_resolutions_are_two_graphs(tmp_path, monkeypatch):
    compiled = torch.nn.Module.compile
    # Tracing is what is tested; generating code for it takes minutes.
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda *given, **options: compiled(*given, backend="eager", **options)
    )
    torch._dynamo.reset()
    counters.clear()
    pretrain(**RUN, output_dir=tmp_path / "run")
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


def command(folder, **options) -> list[str]:
    options = RUN | {"output_dir": folder, "max_steps": 8, "save_every": 4, **options}
    return [sys.executable, "-m", "visreg_training.pretrain", *forked.as_flags(options)]


@pytest.mark.slow
def test_a_compiled_run_learns_and_resumes_bit_for_bit(tmp_path):
    """With the compiler of the system: a minute, most of it the compiler's."""
    cache = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run(command(tmp_path / "whole"), env=cache, check=True, timeout=600)
    half = tmp_path / "half" / "checkpoints"
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "step-00000004", half / "step-00000004")
    shutil.copy(tmp_path / "whole" / "recipe.yaml", tmp_path / "half")
    subprocess.run(command(tmp_path / "half", resume="auto"), env=cache, check=True, timeout=600)
    weights = [(tmp_path / name / "pretraining" / "model.safetensors").read_bytes() for name in ("whole", "half")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_compiler_that_fails_is_told_in_one_line(tmp_path):
    broken = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "CXX": "/bin/false"}
    done = subprocess.run(command(tmp_path / "run"), env=broken, capture_output=True, text=True, timeout=600)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("visreg pretrain: torch.compile failed (")
    assert "Traceback" not in done.stderr
