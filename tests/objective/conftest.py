# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Golden values from another implementation, in float64; tests/golden keeps the gradients of one view only."""

from pathlib import Path

import pytest
from safetensors.torch import load_file


GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(params=sorted(path.stem for path in GOLDEN.glob("*.safetensors")))
def golden(request) -> dict:
    """One file of golden values: z, directions, num_global, <name>.loss, <name>.grad_of_view_1."""
    return load_file(GOLDEN / f"{request.param}.safetensors")
