# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Intervals against what is known of binomial, normal and Student's t."""

import numpy as np
import pytest

from visreg_training.evaluation import intervals


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("right", "count"), [(0, 300), (300, 300), (150, 300), (1, 7)])
def test_interval_of_a_share_is_wilsons(right, count):
    z, share = 1.959963984540054, right / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = intervals.of_share(right, count)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert 0 <= low < high <= 1 and high - low > 0.01  # 300 of 300 is not 100 to 100
    assert np.isnan(intervals.of_share(0, 0)).all()


def test_interval_of_draws_of_shares_stays_between_0_and_1():
    assert intervals.of_draws([0.9, 1.0, 1.0, 1.0, 1.0])[1] > 1
    low, high = intervals.of_shares([0.9, 1.0, 1.0, 1.0, 1.0])
    assert high == 1 and low == pytest.approx(0.98 - 2.7764 * 0.044721 / np.sqrt(5), abs=1e-4)
    assert intervals.of_shares([0.0, 0.0, 0.1])[0] == 0


def test_interval_of_a_mean_is_that_of_the_binomial():
    right = np.arange(10_000) % 4 == 0
    low, high = intervals.of_mean(right)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 10_000)
    assert low == pytest.approx(0.25 - half, abs=1e-3) and high == pytest.approx(0.25 + half, abs=1e-3)


def test_interval_of_continuous_values_is_that_of_the_normal(random):
    values = random.normal(size=2000)
    low, high = intervals.of_mean(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert low == pytest.approx(values.mean() - half, abs=5e-3) and high == pytest.approx(
        values.mean() + half, abs=5e-3
    )


def test_interval_of_a_statistic_agrees_with_that_of_its_mean(random):
    values = random.normal(size=500)
    found = intervals.of_statistic(lambda weights: (weights * values).sum() / weights.sum(), 500, resamples=2000)
    assert found == pytest.approx(intervals.of_mean(values, resamples=2000), abs=0.01)


def test_interval_of_draws_is_student_t():
    low, high = intervals.of_draws([0.5, 0.6, 0.7, 0.8, 0.9])
    assert (low, high) == pytest.approx((0.7 - 0.19632, 0.7 + 0.19632), abs=1e-4)
    with pytest.raises(ValueError, match="at least 2"):
        intervals.of_draws([0.5])
