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


# Every purpose has a stream of its own. NumPy pads entropy with zeros, so that (7,) and (7, 0, 0) are one stream: the
# purpose comes first and is never 0, and the number of numbers follows it.
_PURPOSES = {
    name: number
    for number, name in enumerate(
        (
            "epoch", "block", "image", "replacement", "subset", "subset_image", "sample", "preview",  # data
            "initialization", "drop_path", "color", "directions", "directions_of_rank", "online_probe",  # a run
            "features", "hold_out", "heads", "heads_order", "fewshot", "segment", "finetune", "interval",
            "digest",  # evaluation
        ),
        start=1,
    )
}  # fmt: skip


def _sequence(purpose: str, numbers: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence((_PURPOSES[purpose], len(numbers), *numbers))


def random_uint64(purpose: str, *numbers: int) -> int:
    """One integer of 64 bits, uniform, that depends on its arguments only: a cheaper draw than a generator's.

    Args:
        purpose: a key of `_PURPOSES`.
        numbers: non-negative integers: seed, step, rank, epoch, whatever the draw is for.
    """
    return int(_sequence(purpose, numbers).generate_state(1, np.uint64)[0])


def seed_of(purpose: str, *numbers: int) -> int:
    """A seed of 63 bits, for torch."""
    return random_uint64(purpose, *numbers) >> 1


def short_seed_of(purpose: str, *numbers: int) -> int:
    """A seed of 32 bits, for scikit-learn's `random_state`."""
    return random_uint64(purpose, *numbers) >> 32


def torch_generator(purpose: str, *numbers: int, device: torch.device | str | None = None) -> torch.Generator:
    """torch generator for one purpose, on the CPU by default. CPU and CUDA draw different numbers from one seed."""
    return torch.Generator(device=device or "cpu").manual_seed(seed_of(purpose, *numbers))


def numpy_generator(purpose: str, *numbers: int) -> np.random.Generator:
    """NumPy generator for one purpose."""
    return np.random.default_rng(_sequence(purpose, numbers))


def permutation(length: int, purpose: str, *numbers: int) -> np.ndarray:
    """A permutation of range(length) that depends on its arguments only."""
    return numpy_generator(purpose, *numbers).permutation(length)


def image_generator(seed: int, epoch: int, image: Sequence[int]) -> torch.Generator:
    """Generator of one image's crops in one epoch.

    Args:
        seed: the run's seed.
        epoch: 0, 1, ...: the same image is cropped differently in each epoch.
        image: the numbers that name the image: (index,) in a map-style source, (shard, row group, row) in a stream.
    """
    return torch_generator("image", seed, epoch, *image)
