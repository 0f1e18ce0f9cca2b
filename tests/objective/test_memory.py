# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Nothing of size V * B * K is kept: peak memory in a process of its own, as the benchmark takes it."""

import pytest

from benchmarks.measuring import in_fresh_process


VIEWS, BATCH, DIM = 10, 256, 64


def extra_peak(side: str, slices: int) -> int:
    """Bytes above the inputs during one forward and backward."""
    return in_fresh_process("objective", side, {"B": BATCH, "D": DIM, "K": slices}, 1)["peak"]


@pytest.mark.slow
@pytest.mark.parametrize("side", ["ours", "SIGReg (ours)"])
def test_memory_does_not_grow_with_slices(side):
    few, many = extra_peak(side, 1024), extra_peak(side, 8192)
    directions = (8192 - 1024) * DIM * 4
    one_copy = VIEWS * BATCH * (8192 - 1024) * 4  # what a single kept tensor of projections would add
    assert many - few < 3 * directions + one_copy / 10
