# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The one place that seeds: every random number is a pure function of its purpose, the seed, and where it is used.

Nothing here has state, so nothing of a generator has to be saved: the order of an epoch follows from (seed, epoch),
the crops of an image from (seed, epoch, image), the colors of a batch from (seed, step, rank). Workers, ranks and
restarts change nothing.
"""

from collections.abc import Sequence

import numpy as np
import torch


# Purposes of the data path. They go first into the entropy, so that streams with the same numbers stay independent.
_PURPOSES = {"epoch": 1, "block": 2, "image": 3, "replacement": 4, "subset": 5, "sample": 6}
# Purposes of the step. They go last.
_COLOR, _MODEL = 0, 2


def _fold(*entropy: int) -> int:
    """A 63-bit seed from non-negative integers, well mixed (NumPy's SeedSequence)."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def initialization_seed(seed: int) -> int:
    """Seed of the model's initial weights, the same on every rank."""
    return _fold(seed)


def model_seed(seed: int, step: int, rank: int) -> int:
    """Seed of what the model draws from torch's global generators in one step: drop path, dropout."""
    return _fold(seed, step, rank, _MODEL)


def color_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """CPU generator of the colors of one rank's batch, so that they are the same on every device."""
    return torch.Generator().manual_seed(_fold(seed, step, rank, _COLOR))


def directions_generator(
    seed: int, step: int, rank: int | None = None, device: torch.device | str | None = None
) -> torch.Generator:
    """Generator of the slices of one step: one for all ranks, or one a rank where `rank` is given."""
    entropy = (seed, step) if rank is None else (seed, step, rank + 1)
    return torch.Generator(device=device or "cpu").manual_seed(_fold(*entropy))


def image_generator(seed: int, epoch: int, image: Sequence[int]) -> torch.Generator:
    """Generator of one image's crops in one epoch.

    Args:
        seed: the run's seed.
        epoch: 0, 1, ...: the same image is cropped differently in each epoch.
        image: the numbers that name the image: (index,) in a map-style source, (shard, row group, row) in a stream.
    """
    return torch.Generator().manual_seed(_fold(_PURPOSES["image"], seed, epoch, *image))


def numpy_generator(purpose: str, *numbers: int) -> np.random.Generator:
    """NumPy generator for one purpose of the data path (a key of `_PURPOSES`) and any non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence((_PURPOSES[purpose], *numbers)))


def random_uint64(purpose: str, *numbers: int) -> int:
    """One integer of 64 bits, uniform, that depends on its arguments only: a cheaper draw than a generator's."""
    return int(np.random.SeedSequence((_PURPOSES[purpose], *numbers)).generate_state(1, np.uint64)[0])


def permutation(length: int, purpose: str, *numbers: int) -> np.ndarray:
    """A permutation of range(length) that depends on its arguments only."""
    return numpy_generator(purpose, *numbers).permutation(length)
