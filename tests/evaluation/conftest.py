# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A cache of its own for every test, and tasks whose answer is known."""

import pytest
import torch

from visreg_training.evaluation.cache import FeatureCache
from visreg_training.evaluation.features import Features
from visreg_training.evaluation.splits import make_task


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> FeatureCache:
    """Features of the digits are extracted once for all tests that only read them."""
    return FeatureCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def blobs():
    """Builds a task of Gaussian classes: blobs(spread) -> Task of 4 classes in 8 dimensions."""

    def build(spread: float = 1.0, train: int = 203, test: int = 151, classes: int = 4, validation: int = 0):
        generator = torch.Generator().manual_seed(0)
        centers = torch.randn(classes, 8, generator=generator) * 3

        def split(count: int) -> Features:
            labels = torch.arange(count) % classes
            noise = torch.randn(count, 8, generator=generator) * spread
            return Features(centers[labels] + noise, labels, [str(number) for number in range(count)])

        return make_task(split(train), split(test), split(validation) if validation else None)

    return build
