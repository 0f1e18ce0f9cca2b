# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Retrieval against the metric, whatever is ranked at once."""

import pytest
import torch
from torch.nn import functional

from visreg_training.evaluation.features import Features
from visreg_training.evaluation.metrics import mean_average_precision
from visreg_training.evaluation.protocols.retrieval import RetrievalOptions, rank, retrieval
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
    expected = mean_average_precision(similarity.numpy(), relevant.numpy())
    outcome = retrieval(task, RetrievalOptions(recall_at=(1, 5), gallery=gallery))
    assert outcome.value == pytest.approx(expected, abs=1e-6)
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
    monkeypatch.setattr("visreg_training.evaluation.protocols.retrieval._ENTRIES", 700)
    assert all(torch.equal(a, b) for a, b in zip(whole, rank(task.test, task.train), strict=True))


def test_images_with_a_label_in_common_are_relevant():
    features = torch.eye(3)
    labels = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.uint8)
    part = Features(features, labels, ["a", "b", "c"])
    precisions, first = rank(part, None)
    assert precisions.isnan().tolist() == [False, False, True] and first.tolist()[:2] == [0, 0]
