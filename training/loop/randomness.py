# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""All randomness of a step is a function of (seed, step, rank): nothing of a generator's state has to be saved."""

import numpy as np
import torch


# Streams that must not coincide for the same (seed, step, rank).
AUGMENTATION, DIRECTIONS, MODEL = range(3)


def fold(*numbers: int) -> int:
    """A 63-bit seed from any tuple of non-negative integers, well mixed (numpy's SeedSequence)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(device: torch.device | str, *numbers: int) -> torch.Generator:
    """A torch.Generator on `device` seeded by `fold(*numbers)`."""
    return torch.Generator(device).manual_seed(fold(*numbers))
