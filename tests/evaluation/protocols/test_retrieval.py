# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Retrieval against scikit-learn, ties included, whatever is ranked at once."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn import functional

from visreg_training.evaluation.features import Features
from visreg_training.evaluation.metrics import mean_average_precision
from visreg_training.evaluation.protocols.retrieval import RetrievalOptions, measure_ranking, rank, retrieval
from visreg_training.evaluation.splits import make_task


@pytest.mark.parametrize("gallery", ["train", "test"])
def test_retrieval_is_that_of_the_metric(blobs, gallery):
    task = blobs(4.0)
    bank = task.train if gallery == "train" else task.test
    similarity = functional.normalize(task.test.features) @ functional.normalize(bank.features).T
    relevant = task.test.labels[:, None] == bank.labels
    if gallery == "test":
        off = ~torch.eye(len(relevant), dtype=torch.bool)
        similarity, relevant = (matrix[off].view(len(matrix), -1) for matrix in (similarity, relevant))
    outcome = retrieval(task, RetrievalOptions(recall_at=(1, 5), gallery=gallery))
    levels = (similarity * 2**20).round()
    assert outcome.value == pytest.approx(mean_average_precision(levels.numpy(), relevant.numpy()), abs=1e-6)
    assert outcome.value == pytest.approx(mean_average_precision(similarity.numpy(), relevant.numpy()), abs=1e-4)
    for k in (1, 5):
        top = similarity.topk(k).indices
        assert outcome.metrics[f"recall@{k}"] == pytest.approx(relevant.gather(1, top).any(1).double().mean().item())


@pytest.mark.parametrize("gallery", ["train", "test"])
def test_a_collapsed_model_gets_chance(blobs, gallery):
    """With features that are the same but for rounding, in any order of the images."""
    task = blobs(1.0, test=80)
    flat = [part._replace(features=1 + torch.rand_like(part.features) * 1e-7) for part in (task.train, task.test)]
    outcome = retrieval(make_task(*flat), RetrievalOptions(recall_at=(1, 300), gallery=gallery))
    images, relevant = (203, 203 / 4) if gallery == "train" else (79, 19)
    assert outcome.value == pytest.approx(relevant / images, abs=1e-6)
    assert outcome.metrics["recall@1"] == pytest.approx(relevant / images, abs=1e-6)
    assert outcome.metrics["recall@300"] == 1


def test_ties_are_measured_as_scikit_learn_and_all_orders_have_it():
    """Small sets of few levels: mean average precision by scikit-learn, recall by trying every order."""
    random = np.random.default_rng(0)
    for _case in range(20):
        levels, relevant = random.integers(0, 3, (4, 6)), random.random((4, 6)) < 0.4
        keys = np.sort(-2 * levels + ~relevant, axis=1)
        precisions, recalls = measure_ranking(keys, (1, 2, 4))
        assert (np.isnan(precisions) == ~relevant.any(1)).all()
        if relevant.any():
            assert np.nanmean(precisions) == pytest.approx(mean_average_precision(levels, relevant))
        orders = list(permutations(range(6)))
        for row in range(4):
            fair = [order for order in orders if (np.diff(levels[row][list(order)]) <= 0).all()]
            for column, k in enumerate((1, 2, 4)):
                chance = np.mean([relevant[row][list(order[:k])].any() for order in fair])
                assert recalls[row, column] == pytest.approx(chance)


def test_long_groups_of_ties_end_where_they_end():
    keys = np.array([[0] * 3 + [1] * 40 + [2] + [3] * 6, [1] * 10 + [2] * 2 + [3] * 38])
    precisions, recalls = measure_ranking(keys, (11,))
    assert precisions == pytest.approx([(3 * 3 / 43 + 4 / 50) / 4, 2 / 50])
    assert recalls[1, 0] == pytest.approx(2 / 40)


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
    whole = rank(task.test, task.train, (1, 5))
    monkeypatch.setattr("visreg_training.evaluation.protocols.retrieval._ENTRIES", 700)
    for found, expected in zip(rank(task.test, task.train, (1, 5)), whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)  # products of another shape round otherwise


def test_images_with_a_label_in_common_are_relevant():
    features = torch.eye(3) + torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.uint8)
    precisions, recalls = rank(Features(features, labels, ["a", "b", "c"]), None)
    assert np.isnan(precisions).tolist() == [False, False, True]
    assert precisions[:2].tolist() == [1, 1] and recalls[:, 0].tolist() == [1, 1, 0]
