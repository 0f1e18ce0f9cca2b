# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The `evaluate` modules, loaded from their folders without network, against scikit-learn on random input."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn import metrics

import visreg_training.evaluation
from visreg_training.evaluation import bootstrap


FOLDER = Path(visreg_training.evaluation.__file__).parent / "metrics"


@pytest.fixture(autouse=True)
def modules_cache(tmp_path, monkeypatch):
    """`evaluate` copies scripts to a cache: one of its own, as a user's home may not be written to."""
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_CACHE", tmp_path)


def compute(name: str, **arguments) -> float:
    module = evaluate.load(str(FOLDER / name), keep_in_memory=True)
    return module.compute(**arguments)[name]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_every_folder_holds_a_module_of_its_name():
    names = sorted(path.name for path in FOLDER.iterdir() if path.name != "__pycache__")
    assert names == ["accuracy", "macro_auroc", "mean_average_precision", "mean_iou", "top5_accuracy"]
    assert all((FOLDER / name / f"{name}.py").is_file() for name in names)


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


def test_weighted_auroc_is_that_of_repeated_images(random):
    from visreg_training.evaluation.metrics.macro_auroc.macro_auroc import macro_auroc

    scores, references = random.normal(size=(60, 2)), random.integers(0, 2, (60, 2))
    weights = random.integers(0, 4, 60)
    expected = metrics.roc_auc_score(np.repeat(references, weights, 0), np.repeat(scores, weights, 0))
    assert macro_auroc(scores, references, weights) == pytest.approx(expected)


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


def test_interval_of_a_mean_is_that_of_the_binomial():
    right = np.arange(10_000) % 4 == 0
    low, high = bootstrap.of_mean(right)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 10_000)
    assert low == pytest.approx(0.25 - half, abs=1e-3) and high == pytest.approx(0.25 + half, abs=1e-3)


def test_interval_of_continuous_values_is_that_of_the_normal(random):
    values = random.normal(size=2000)
    low, high = bootstrap.of_mean(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert low == pytest.approx(values.mean() - half, abs=5e-3) and high == pytest.approx(
        values.mean() + half, abs=5e-3
    )


def test_interval_of_a_statistic_agrees_with_that_of_its_mean(random):
    values = random.normal(size=500)
    found = bootstrap.of_statistic(lambda weights: (weights * values).sum() / weights.sum(), 500, resamples=2000)
    assert found == pytest.approx(bootstrap.of_mean(values, resamples=2000), abs=0.01)


def test_interval_of_draws_is_student_t():
    low, high = bootstrap.of_draws([0.5, 0.6, 0.7, 0.8, 0.9])
    assert (low, high) == pytest.approx((0.7 - 0.19632, 0.7 + 0.19632), abs=1e-4)
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap.of_draws([0.5])
