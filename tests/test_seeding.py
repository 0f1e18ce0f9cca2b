# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""No two purposes share a stream, whatever small numbers they are used with."""

from itertools import product

import numpy as np
import torch

from visreg_training import seeding


def test_no_two_purposes_meet_and_zeros_count():
    numbers = [given for length in range(5) for given in product(range(3), repeat=length)]
    seeds = [seeding.random_uint64(purpose, *given) for purpose in seeding._PURPOSES for given in numbers]
    assert len(seeds) > 2500 and len(set(seeds)) == len(seeds)
    assert 0 not in seeding._PURPOSES.values()


def test_numpy_alone_would_let_them_meet():
    """Why the purpose comes first, is never 0, and the number of numbers follows it."""
    first, second = (np.random.SeedSequence(entropy).generate_state(1) for entropy in ((7,), (7, 0, 0)))
    assert first == second


def test_large_seeds_do_not_run_into_the_numbers_behind_them():
    assert seeding.seed_of("color", 2**32, 5) != seeding.seed_of("color", 0, 1, 5)
    assert len({seeding.seed_of("color", seed, step) for seed in (0, 1, 2**32, 2**62) for step in (0, 1, 2**32)}) == 12


def test_seeds_fit_what_they_are_for():
    assert 0 <= seeding.short_seed_of("hold_out", 0) < 2**32
    for seed in range(50):
        assert 0 <= seeding.seed_of("heads", seed) < 2**63
        torch.Generator().manual_seed(seeding.seed_of("heads", seed))


def test_the_draws_of_a_step_differ_at_the_beginning():
    """Colors, slices, drop path and initial weights of step 0, rank 0, seed 0 came from one stream once."""
    seeds = [
        seeding.seed_of("color", 0, 0, 0),
        seeding.seed_of("directions", 0, 0),
        seeding.seed_of("drop_path", 0, 0, 0),
        seeding.seed_of("initialization", 0),
    ]
    assert len(set(seeds)) == 4
