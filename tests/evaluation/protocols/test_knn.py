# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""kNN against a plain implementation."""

import pytest
import torch
from torch.nn import functional

from visreg_training.evaluation.nearest import vote
from visreg_training.evaluation.protocols.knn import KnnOptions, knn, knn_accuracy, knn_scores
from visreg_training.evaluation.splits import make_task


def plain_knn(task, k: int, temperature: float) -> list[int]:
    predictions = []
    for query in task.test.features:
        similarity = functional.cosine_similarity(query[None], task.train.features)
        votes = torch.zeros(task.num_classes)
        for place in similarity.argsort(descending=True)[:k]:
            votes[task.train.labels[place]] += torch.exp(similarity[place] / temperature)
        predictions.append(int(votes.argmax()))
    return predictions


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 1.0), (1000, 0.07)])
def test_knn_is_the_plain_one_whatever_the_chunk(blobs, k, temperature):
    task = blobs(4.0)
    expected = plain_knn(task, k, temperature)
    for chunk in (1, 7, 1024):
        arguments = (task.train.features, task.train.labels, task.test.features, [(k, temperature)])
        assert knn_scores(*arguments, chunk=chunk)[0].argmax(1).tolist() == expected


def test_a_tiny_temperature_does_not_overflow(blobs):
    task = blobs(4.0)
    scores = knn_scores(task.train.features, task.train.labels, task.test.features, [(20, 1e-4)])[0]
    assert scores.isfinite().all()


def test_knn_takes_one_setting_as_given_and_chooses_among_several_on_validation(blobs):
    task = blobs(4.0)
    assert knn(task).selection is None
    options = KnnOptions(k=(1, 20, 50), temperature=(0.07, 0.5))
    outcome = knn(task, options)
    assert outcome.selection["on"] == "validation" and len(outcome.selection["candidates"]) == 6
    shuffled = task.test.labels[torch.randperm(len(task.test.labels), generator=torch.Generator().manual_seed(1))]
    leaking = knn(
        make_task(task.train, task.test._replace(labels=shuffled)), KnnOptions(k=(1, 20, 50), temperature=(0.07, 0.5))
    )
    assert leaking.selection == outcome.selection
    assert knn(task, KnnOptions(k=(1, 20), selection="test")).selection["on"] == "test"
    with pytest.raises(ValueError, match="at least 1"):
        KnnOptions(k=(0,))


def test_neighbors_that_are_not_there_yet_have_no_vote():
    """The memory of a run's online probe starts empty."""
    similarity = torch.tensor([[0.5, 0.4, -torch.inf], [-torch.inf] * 3])
    votes = vote(similarity, torch.tensor([[1, 1, 0], [0, 0, 0]]), 0.07, 2)
    assert votes[0].argmax() == 1 and votes[0, 0] == 0 and votes[1].tolist() == [0, 0]


def test_knn_of_several_labels(blobs):
    task = blobs(0.5)
    hot = [part._replace(labels=functional.one_hot(part.labels).byte()) for part in (task.train, task.test)]
    assert knn(make_task(*hot)).value == pytest.approx(1.0)


def test_knn_of_constant_features_is_chance(blobs):
    task = blobs(1.0, test=400)
    ones = [torch.ones_like(part.features) for part in (task.train, task.test)]
    assert knn_accuracy(ones[0], task.train.labels, ones[1], task.test.labels) == pytest.approx(0.25)
