# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""kNN, few-shot and retrieval against plain implementations."""

import pytest
import torch
from torch.nn import functional

from visreg_training.evaluation.features import Features
from visreg_training.evaluation.fewshot import draw_rows, fewshot
from visreg_training.evaluation.knn import knn, knn_accuracy, knn_predict, knn_scores
from visreg_training.evaluation.metrics.mean_average_precision.mean_average_precision import average_precisions
from visreg_training.evaluation.retrieval import rank, retrieval
from visreg_training.evaluation.task import make_task


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
        arguments = (task.train.features, task.train.labels, task.test.features, k, temperature, chunk)
        assert knn_predict(*arguments).tolist() == expected


def test_a_tiny_temperature_does_not_overflow(blobs):
    task = blobs(4.0)
    scores = knn_scores(task.train.features, task.train.labels, task.test.features, [(20, 1e-4)])[0]
    assert scores.isfinite().all()


def test_knn_takes_one_setting_as_given_and_chooses_among_several_on_validation(blobs):
    task = blobs(4.0)
    assert knn(task).selection is None
    outcome = knn(task, (1, 20, 50), (0.07, 0.5))
    assert outcome.selection["on"] == "validation" and len(outcome.selection["candidates"]) == 6
    shuffled = task.test.labels[torch.randperm(len(task.test.labels), generator=torch.Generator().manual_seed(1))]
    leaking = knn(make_task(task.train, task.test._replace(labels=shuffled)), (1, 20, 50), (0.07, 0.5))
    assert leaking.selection == outcome.selection
    assert knn(task, (1, 20), selection="test").selection["on"] == "test"
    with pytest.raises(ValueError, match="at least 1"):
        knn(task, (0,))


def test_knn_of_several_labels(blobs):
    task = blobs(0.5)
    hot = [part._replace(labels=functional.one_hot(part.labels).byte()) for part in (task.train, task.test)]
    assert knn(make_task(*hot)).value == pytest.approx(1.0)


def test_knn_of_constant_features_is_chance(blobs):
    task = blobs(1.0, test=400)
    ones = [torch.ones_like(part.features) for part in (task.train, task.test)]
    assert knn_accuracy(ones[0], task.train.labels, ones[1], task.test.labels) == pytest.approx(0.25)


def test_fewshot_draws_so_many_images_of_each_class(blobs):
    import numpy as np

    labels = blobs().train.labels
    rows = draw_rows(labels, 5, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 20 and labels[rows].bincount().tolist() == [5, 5, 5, 5]


def test_fewshot_reports_draws_and_their_interval(blobs):
    outcome = fewshot(blobs(2.0), (1, 10), draws=6)
    assert outcome.metrics["10_shot"]["value"] > outcome.metrics["1_shot"]["value"] > 0.25
    assert len(outcome.metrics["1_shot"]["draws"]) == 6
    low, high = outcome.interval
    assert low < outcome.value < high
    assert outcome == fewshot(blobs(2.0), (1, 10), draws=6)


@pytest.mark.parametrize(("shots", "draws", "words"), [((1,), 4, "at least 5"), ((0,), 5, "at least 1")])
def test_fewshot_refuses(blobs, shots, draws, words):
    with pytest.raises(ValueError, match=words):
        fewshot(blobs(), shots, draws)


@pytest.mark.parametrize("gallery", ["train", "test"])
def test_retrieval_is_that_of_the_metric(blobs, gallery):
    task = blobs(4.0)
    bank = task.train if gallery == "train" else task.test
    similarity = functional.normalize(task.test.features) @ functional.normalize(bank.features).T
    relevant = task.test.labels[:, None] == bank.labels
    if gallery == "test":
        off = ~torch.eye(len(relevant), dtype=torch.bool)
        similarity, relevant = (matrix[off].view(len(matrix), -1) for matrix in (similarity, relevant))
    expected = average_precisions(similarity.numpy(), relevant.numpy())
    outcome = retrieval(task, (1, 5), gallery)
    assert outcome.value == pytest.approx(expected.mean(), abs=1e-6)
    for k in (1, 5):
        top = similarity.topk(k).indices
        assert outcome.metrics[f"recall@{k}"] == pytest.approx(relevant.gather(1, top).any(1).double().mean().item())


def test_retrieval_leaves_out_queries_without_relevant_images(blobs):
    task = blobs(1.0)
    labels = task.test.labels.clone()
    labels[:3] = 9
    outcome = retrieval(make_task(task.train, task.test._replace(labels=labels)))
    assert outcome.metrics["queries_left_out"] == 3
    with pytest.raises(ValueError, match="no query"):
        retrieval(make_task(task.train, task.test._replace(labels=labels + 10)))


def test_rankings_are_the_same_in_chunks(blobs, monkeypatch):
    task = blobs(4.0)
    whole = rank(task.test, task.train)
    monkeypatch.setattr("visreg_training.evaluation.retrieval._ENTRIES", 700)
    assert all(torch.equal(a, b) for a, b in zip(whole, rank(task.test, task.train), strict=True))


def test_images_with_a_label_in_common_are_relevant():
    features = torch.eye(3)
    labels = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.uint8)
    part = Features(features, labels, ["a", "b", "c"])
    precisions, first = rank(part, None)
    assert precisions.isnan().tolist() == [False, False, True] and first.tolist()[:2] == [0, 0]
