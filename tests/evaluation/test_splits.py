# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Tasks: what is no number is refused, and what would mislead is said."""

import pytest
import torch

from visreg_training.evaluation.features import Features
from visreg_training.evaluation.protocols.fewshot import fewshot
from visreg_training.evaluation.protocols.knn import knn
from visreg_training.evaluation.protocols.linear import LinearOptions, linear
from visreg_training.evaluation.protocols.retrieval import retrieval
from visreg_training.evaluation.splits import make_task


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("split", ["train", "test", "validation"])
def test_features_that_are_not_finite_are_refused_by_the_name_of_the_image(blobs, split, value):
    task = blobs(validation=20)
    parts = {"train": task.train, "test": task.test, "validation": task.validation}
    bad = parts[split].features.clone()
    bad[7, 3] = value
    parts[split] = parts[split]._replace(features=bad)
    name = "training" if split == "train" else split
    with pytest.raises(ValueError, match=rf"the features of {name} image '7' are not finite \(1 of \d+ images\)"):
        make_task(**parts)


def test_one_class_is_refused(blobs):
    task = blobs()
    with pytest.raises(ValueError, match="all training images are of one class"):
        make_task(task.train._replace(labels=torch.full_like(task.train.labels, 2)), task.test)


def several(count: int, classes: int) -> Features:
    generator = torch.Generator().manual_seed(count)
    features = torch.randn(count, 8, generator=generator)
    labels = (features[:, :classes] > 0).to(torch.uint8)
    return Features(features, labels, [str(number) for number in range(count)])


def test_labels_of_splits_that_saw_other_classes_are_made_equally_wide():
    """Lists of classes without names: each split is as wide as its highest class."""
    for train, test in ((several(200, 3), several(100, 5)), (several(200, 5), several(100, 3))):
        task = make_task(train, test)
        assert task.num_classes == task.train.labels.shape[1] == task.test.labels.shape[1] == 5
        assert (task.train.labels[:, :3] == train.labels[:, :3]).all()
        assert linear(task, LinearOptions(epochs=2)).metric == knn(task).metric == "macro_auroc"
    assert make_task(several(200, 3), several(100, 5)).notes() == [
        "2 of the 5 classes of the test images have no training image"
    ]
    assert "mean over 3 of 5 classes" in linear(make_task(several(200, 5), several(100, 3))).notes[0]


def test_classes_of_one_split_only_are_wrong_and_said(blobs):
    task = blobs(0.3)
    labels = task.test.labels.clone()
    labels[:10] = 6
    wider = make_task(task.train, task.test._replace(labels=labels))
    assert wider.notes() == ["1 of the 5 classes of the test images have no training image"]
    assert knn(wider).value == pytest.approx(141 / 151)
    assert retrieval(wider).metrics["queries_left_out"] == 10 and fewshot(wider).value <= 141 / 151


def test_images_in_train_and_test_are_counted(blobs):
    task = blobs()
    digests = torch.arange(203), torch.arange(190, 190 + 151)
    train, test = (part._replace(digests=some) for part, some in zip((task.train, task.test), digests, strict=True))
    assert make_task(train, test).notes() == ["13 of 151 test images stand among the training images too"]
    assert make_task(train, test._replace(digests=digests[1] + 500)).notes() == []


def test_sparse_numbers_of_classes_are_numbered_by_what_occurs():
    """In any split: 20231107 is no reason for a head of twenty million classes. A class that is missing stays one."""

    def part(labels: list[int]) -> Features:
        return Features(torch.rand(len(labels), 2), torch.tensor(labels), [str(label) for label in labels])

    task = make_task(part([5, 1001, 20231107, 5]), part([1001, 77]))
    assert task.num_classes == 4 and task.label_names == ["5", "77", "1001", "20231107"]
    assert task.train.labels.tolist() == [0, 2, 3, 0] and task.test.labels.tolist() == [2, 1]
    task = make_task(part([0, 1, 3]), part([3, 1]))
    assert task.num_classes == 4 and task.label_names is None and task.train.labels.tolist() == [0, 1, 3]
