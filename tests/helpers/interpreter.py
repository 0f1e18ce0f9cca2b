# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Tests of kernels in Triton: on a GPU where there is one, and in Triton's interpreter in a process of its own."""

import os
import subprocess
import sys

import pytest
import torch


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
ON_DEVICE = pytest.mark.cpu if INTERPRETED else pytest.mark.gpu


def run_in_the_interpreter(file: str) -> None:
    """The tests of a file again, with TRITON_INTERPRET=1: Triton reads it when it is imported."""
    if INTERPRETED:
        pytest.skip("this is it")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", file]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout
