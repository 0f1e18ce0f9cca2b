# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Few-shot classification: what is drawn, and the interval over the draws."""

import numpy as np
import pytest

from visreg_training.evaluation.protocols.fewshot import FewshotOptions, draw_rows, fewshot


def test_fewshot_draws_so_many_images_of_each_class(blobs):
    labels = blobs().train.labels
    rows = draw_rows(labels, 5, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 20 and labels[rows].bincount().tolist() == [5, 5, 5, 5]


def test_fewshot_reports_draws_and_their_interval(blobs):
    outcome = fewshot(blobs(2.0), FewshotOptions(shots=(1, 10), draws=6))
    assert outcome.metrics["10_shot"]["value"] > outcome.metrics["1_shot"]["value"] > 0.25
    assert len(outcome.metrics["1_shot"]["draws"]) == 6
    low, high = outcome.interval
    assert low < outcome.value < high
    assert outcome == fewshot(blobs(2.0), FewshotOptions(shots=(1, 10), draws=6))


def test_classes_with_fewer_images_than_shots_are_counted_and_said(blobs):
    task = blobs(1.0, train=18)  # five images of two classes, four of the others
    outcome = fewshot(task, FewshotOptions(shots=(1, 5, 10)))
    assert outcome.notes == [
        "2 of 4 classes have fewer than 5 training images, and give all they have",
        "4 of 4 classes have fewer than 10 training images, and give all they have",
    ]
    assert 0 <= outcome.interval[0] <= outcome.interval[1] <= 1
    assert fewshot(task, FewshotOptions(shots=(1, 4))).notes == []


@pytest.mark.parametrize(("shots", "draws", "words"), [((1,), 4, "at least 5"), ((0,), 5, "at least 1")])
def test_fewshot_refuses(shots, draws, words):
    with pytest.raises(ValueError, match=words):
        FewshotOptions(shots=shots, draws=draws)
