# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The metrics, as `evaluate.Metric` classes, against scikit-learn on random input, ties included."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics

from visreg_training.evaluation.metric_classes import (
    Accuracy,
    MacroAUROC,
    MeanAveragePrecision,
    MeanIoU,
    Top5Accuracy,
)
from visreg_training.evaluation.metrics import class_aurocs, class_balance, macro_auroc
from visreg_training.evaluation.outcome import score, select
from visreg_training.evaluation.reports.results import percent


METRICS = {
    "accuracy": Accuracy,
    "macro_auroc": MacroAUROC,
    "mean_average_precision": MeanAveragePrecision,
    "mean_iou": MeanIoU,
    "top5_accuracy": Top5Accuracy,
}


def compute(name: str, **arguments) -> float:
    return METRICS[name](keep_in_memory=True).compute(**arguments)[name]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_accuracy(random):
    predictions, references = random.integers(0, 5, (2, 100))
    expected = metrics.accuracy_score(references, predictions)
    assert compute("accuracy", predictions=predictions, references=references) == pytest.approx(expected)


def test_top5_accuracy(random):
    scores, references = random.normal(size=(200, 12)).astype(np.float32), random.integers(0, 12, 200)
    expected = metrics.top_k_accuracy_score(references, scores, k=5, labels=np.arange(12))
    assert compute("top5_accuracy", predictions=scores, references=references) == pytest.approx(expected)


def test_top5_accuracy_of_a_constant_score_is_chance(random):
    references = np.arange(100) % 10
    value = compute("top5_accuracy", predictions=np.zeros((100, 10), np.float32), references=references)
    assert value == pytest.approx(0.5)


@pytest.mark.parametrize("levels", [0, 4])
def test_macro_auroc(random, levels):
    """Also with ties, when scores have only a few levels."""
    scores, references = random.normal(size=(150, 6)), random.integers(0, 2, (150, 6))
    scores = np.round(scores * levels) if levels else scores
    expected = metrics.roc_auc_score(references, scores, average="macro")
    assert compute("macro_auroc", predictions=scores, references=references) == pytest.approx(expected, abs=1e-6)


def test_macro_auroc_leaves_out_a_class_without_positives(random):
    scores, references = random.normal(size=(80, 3)), random.integers(0, 2, (80, 3))
    references[:, 1] = 0
    expected = metrics.roc_auc_score(references[:, [0, 2]], scores[:, [0, 2]], average="macro")
    assert compute("macro_auroc", predictions=scores, references=references) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("levels", [0, 4])
def test_weighted_auroc_is_scikit_learns_to_the_last_digits(random, levels):
    """A bootstrap weighs images by how often each was drawn, some of them not at all."""
    scores, references = random.normal(size=(60, 5)), random.integers(0, 2, (60, 5))
    scores = np.round(scores * levels) if levels else scores
    weights = random.multinomial(60, np.full(60, 1 / 60))
    pairs = zip(references.T, scores.T, strict=True)
    expected = [metrics.roc_auc_score(*pair, sample_weight=weights) for pair in pairs]
    assert class_aurocs(scores, references, weights) == pytest.approx(expected, abs=1e-12)
    repeated = macro_auroc(np.repeat(scores, weights, 0), np.repeat(references, weights, 0))
    assert macro_auroc(scores, references, weights) == pytest.approx(repeated, abs=1e-12)


def test_mean_iou(random):
    predictions, references = random.integers(0, 4, (2, 5, 12, 9))
    value = compute("mean_iou", predictions=predictions, references=references, num_classes=4)
    expected = metrics.jaccard_score(references.ravel(), predictions.ravel(), average="macro")
    assert value == pytest.approx(expected)


def test_mean_iou_ignores_pixels(random):
    predictions, references = random.integers(0, 4, (2, 5, 12, 9))
    ignored = random.random((5, 12, 9)) < 0.3
    value = compute("mean_iou", predictions=predictions, references=np.where(ignored, 255, references), num_classes=4)
    expected = metrics.jaccard_score(references[~ignored], predictions[~ignored], average="macro")
    assert value == pytest.approx(expected)


@pytest.mark.parametrize("levels", [0, 3])
def test_mean_average_precision(random, levels):
    scores, relevant = random.normal(size=(20, 40)), random.integers(0, 2, (20, 40))
    scores = np.round(scores * levels) if levels else scores
    expected = np.mean(
        [metrics.average_precision_score(truth, row) for truth, row in zip(relevant, scores, strict=True)]
    )
    value = compute("mean_average_precision", predictions=scores, references=relevant)
    assert value == pytest.approx(expected, abs=1e-6)


def test_where_classes_differ_in_size_balanced_accuracy_and_the_majority_stand_beside_accuracy():
    truth = np.array([0] * 70 + [1] * 20 + [3] * 10)
    always = class_balance(np.zeros(100, int), truth)
    assert always == {"balanced_accuracy": pytest.approx(1 / 3), "majority_share": 0.7}
    predictions = np.random.default_rng(0).choice([0, 1, 2, 3], 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # class 2 is predicted, and no image's
        expected = metrics.balanced_accuracy_score(truth, predictions)
    assert class_balance(predictions, truth)["balanced_accuracy"] == pytest.approx(expected)
    assert class_balance(np.zeros(30, int), np.arange(30) % 3) == {}
    found = score(torch.eye(4)[torch.zeros(100, dtype=torch.long)], torch.from_numpy(truth))
    assert found.value == 0.7 and found.metrics == always
    result = {"value": 0.7, "interval": [0.6, 0.78], "metrics": found.metrics}
    assert percent(result) == "70.0 (60.0 to 78.0; balanced 33.3, majority 70.0)"


def test_the_best_is_chosen_by_value_then_by_loss_and_never_without_a_value():
    candidates = [{"k": number} for number in range(4)]
    assert select("validation", candidates, [0.5, 0.7, 0.7, 0.7], [0.1, 0.9, 0.2, 0.4])[0] == 2
    assert select("validation", candidates, [0.5, 0.7, 0.7, 0.7])[0] == 1
    assert select("test", candidates, [np.nan, 0.2, np.nan, 0.1], [0.0, 1.0, 0.0, 1.0])[0] == 1
    record = select("test", candidates[:2], [0.5, 0.5], [0.3, 0.1])[1]
    assert record["chosen"] == {"k": 1} and record["candidates"][0] == {"k": 0, "value": 0.5, "loss": 0.3}
