# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""95 % intervals: Wilson's for shares of the test images, percentile bootstrap over them, Student's t over draws.

n images, R resamples.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from ..seeding import numpy_generator


LEVEL = 0.95
RESAMPLES = 1000


def of_share(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval of the share `right` / `count` (accuracy): it has a width at 0 and at 1, where a bootstrap has
    none. nan without images."""
    if count == 0:
        return float("nan"), float("nan")
    found = stats.binomtest(int(right), int(count)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def of_mean(values, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Interval of the mean of (n,) values, one an image (average precision for retrieval)."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    levels, counts = np.unique(values, return_counts=True)
    generator = numpy_generator("interval", seed)
    if len(levels) < len(values) // 4:  # drawing how often each value comes is the same, and fast
        draws = generator.multinomial(len(values), counts / len(values), size=resamples)
        return percentiles(draws @ levels / len(values))
    means = [generator.choice(values, len(values)).mean() for _ in range(resamples)]
    return percentiles(np.array(means))


def of_statistic(statistic: Callable, count: int, seed: int = 0, resamples: int = 200) -> tuple[float, float]:
    """Interval of any statistic of weighted images: `statistic(weights)`, weights (n,) how often each was drawn."""
    generator = numpy_generator("interval", seed)
    even = np.full(count, 1 / count)
    values = np.array([statistic(generator.multinomial(count, even)) for _ in range(resamples)])
    return percentiles(values[np.isfinite(values)])


def of_draws(values) -> tuple[float, float]:
    """Student's t interval of the mean of a few independent draws.

    Raises:
        ValueError: fewer than two draws.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        raise ValueError("an interval needs at least 2 draws")
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def of_shares(values) -> tuple[float, float]:
    """`of_draws` of shares, cut at 0 and 1: the mean of shares lies nowhere else.

    Raises:
        ValueError: fewer than two draws.
    """
    low, high = of_draws(values)
    return max(0.0, low), min(1.0, high)


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The two ends of the middle 95 %; nan where nothing could be drawn."""
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
