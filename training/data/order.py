# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Random numbers of the data path, each a pure function of what it is for.

Nothing here has a state: the order of an epoch follows from (seed, epoch), the crops of an image from (seed, epoch,
image), so that workers, ranks and restarts change nothing.
"""

from collections.abc import Sequence

import numpy as np
import torch


# The purpose goes into the entropy, so that streams with the same numbers stay independent.
_PURPOSES = {"epoch": 1, "block": 2, "image": 3, "replacement": 4, "subset": 5, "sample": 6}


def seed_sequence(purpose: str, *numbers: int) -> np.random.SeedSequence:
    """Entropy for one purpose (a key of `_PURPOSES`) and any non-negative numbers."""
    return np.random.SeedSequence((_PURPOSES[purpose], *numbers))


def numpy_generator(purpose: str, *numbers: int) -> np.random.Generator:
    """A NumPy generator that depends on its arguments only."""
    return np.random.default_rng(seed_sequence(purpose, *numbers))


def permutation(length: int, purpose: str, *numbers: int) -> np.ndarray:
    """A permutation of range(length) that depends on its arguments only."""
    return numpy_generator(purpose, *numbers).permutation(length)


def image_generator(seed: int, epoch: int, image: Sequence[int]) -> torch.Generator:
    """The generator of one image's crops in one epoch.

    Args:
        seed: the run's seed.
        epoch: 0, 1, ...: the same image is cropped differently in each epoch.
        image: the numbers that name the image: (index,) in a map-style source, (shard, piece, row) in a stream.
    """
    state = seed_sequence("image", seed, epoch, *image).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
