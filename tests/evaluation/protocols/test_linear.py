# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Linear heads: one product is as good as one optimizer each, and nothing leaks from the test images."""

import dataclasses
from itertools import chain

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from visreg_training.evaluation import logistic
from visreg_training.evaluation.features import Features
from visreg_training.evaluation.heads import EPS, LEARNING_RATES, MOMENTUM, BatchedHeads, schedule, train_heads
from visreg_training.evaluation.logistic import STRENGTHS
from visreg_training.evaluation.protocols import linear as module
from visreg_training.evaluation.protocols.linear import LinearOptions, linear, linear_accuracy
from visreg_training.evaluation.splits import hold_out, make_task
from visreg_training.seeding import torch_generator


FAST = LinearOptions(epochs=8, head_batch_size=64)
FAST_ON_TEST = dataclasses.replace(FAST, selection="test")
FULL_BATCH = LinearOptions(solver="lbfgs")


def separate(heads: BatchedHeads, features, targets, epochs: int, batch_size: int) -> list[nn.Module]:
    """The same heads with one module and one optimizer each."""
    width, classes = features.shape[1], heads.num_classes
    modules, optimizers = [], []
    for index, (rate, decay) in enumerate(heads.settings):
        module = nn.Sequential(nn.BatchNorm1d(width, eps=EPS, affine=False), nn.Linear(width, classes)).double()
        with torch.no_grad():
            module[1].weight.copy_(heads.weight.view(-1, classes, width)[index])
            module[1].bias.zero_()
        modules.append(module)
        optimizers.append(torch.optim.SGD(module.parameters(), rate, momentum=MOMENTUM, weight_decay=decay))
    generator = torch_generator("heads_order", 0)
    count = -(-len(features) // batch_size)
    for epoch in range(epochs):
        for number, rows in enumerate(torch.randperm(len(features), generator=generator).tensor_split(count)):
            factor = schedule(epoch * count + number, epochs * count, batch_size)
            for module, optimizer, (rate, _decay) in zip(modules, optimizers, heads.settings, strict=True):
                optimizer.param_groups[0]["lr"] = rate * factor
                logits = module(features[rows])
                if heads.multi_label:
                    loss = nn.functional.binary_cross_entropy_with_logits(logits, targets[rows].float())
                else:
                    loss = nn.functional.cross_entropy(logits, targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return [module.eval() for module in modules]


def as_double(heads: BatchedHeads) -> BatchedHeads:
    for name in ("weight", "bias", "weight_momentum", "bias_momentum", "rates", "decays", "mean", "var"):
        setattr(heads, name, getattr(heads, name).double())
    return heads


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("decays", [(0.0,), (0.0, 1e-2)])
def test_heads_as_one_product_are_those_of_one_optimizer_each(blobs, multi_label, decays):
    features = blobs(3.0).train.features.double()
    labels = blobs(3.0).train.labels
    targets = torch.nn.functional.one_hot(labels) if multi_label else labels
    heads = as_double(BatchedHeads(8, 4, LEARNING_RATES, decays, multi_label))
    modules = separate(heads, features, targets, epochs=3, batch_size=64)
    train_heads(heads, features, targets, epochs=3, batch_size=64)
    scores = torch.cat(list(heads.scores(features)))
    with torch.no_grad():
        for index, module in enumerate(modules):
            torch.testing.assert_close(scores[:, index], module(features), rtol=1e-6, atol=1e-6)  # rates are float32


def test_learning_rates_are_those_of_the_paper():
    assert len(LEARNING_RATES) == 13
    assert LEARNING_RATES[0] == pytest.approx(1e-4) and LEARNING_RATES[-1] == pytest.approx(0.5)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 129])
def test_every_epoch_sees_every_image_whatever_the_batch_size(count):
    seen = []

    class Recorder(BatchedHeads):
        def step(self, features, targets, factor):
            seen.append(features[:, 0].tolist())

    heads = Recorder(2, 2)
    features = torch.arange(count).float()[:, None].repeat(1, 2)
    train_heads(heads, features, torch.zeros(count, dtype=torch.long), epochs=2, batch_size=64)
    assert sorted(chain.from_iterable(seen)) == sorted(list(range(count)) * 2)
    assert max(map(len, seen)) <= 64 and max(map(len, seen)) - min(map(len, seen)) <= 1


def test_linear_solves_what_is_separable_and_says_how_it_chose(blobs):
    outcome = linear(blobs(0.5), FAST)
    assert outcome.value == 1.0 and outcome.interval == pytest.approx((151 / (151 + 1.96**2), 1.0), abs=1e-4)
    assert outcome.selection["on"] == "validation" and len(outcome.selection["candidates"]) == 13
    assert linear(blobs(0.5), FAST_ON_TEST).selection["on"] == "test"
    assert linear(blobs(0.5), FULL_BATCH).value == 1.0


def test_among_learning_rates_that_do_as_well_the_lowest_validation_loss_decides(blobs):
    """Of 40 images 4 are chosen on: many rates have as many of them right."""
    task = blobs(1.5, train=40)
    record = linear(task, FAST).selection
    tied = [entry for entry in record["candidates"] if entry["value"] == record["value"]]
    fit, held = hold_out(task.train.labels)
    losses = {}
    for rate in LEARNING_RATES:
        heads = BatchedHeads(8, 4, (rate,))
        train_heads(heads, task.train.features[fit], task.train.labels[fit], FAST.epochs, FAST.head_batch_size)
        scores = heads.head_scores(task.train.features[held], 0).double().softmax(1)
        losses[rate] = log_loss(task.train.labels[held], scores, labels=range(4))
    assert [entry["loss"] for entry in record["candidates"]] == pytest.approx(list(losses.values()), abs=1e-4)
    assert len(tied) > 1 and tied[0]["learning_rate"] != record["chosen"]["learning_rate"]
    chosen = min((entry["learning_rate"] for entry in tied), key=losses.__getitem__)
    assert record["chosen"]["learning_rate"] == pytest.approx(chosen)


def test_the_loss_of_a_strength_is_that_of_scikit_learn(blobs):
    task = blobs(4.0)
    fit, held = (split.features.double().numpy() for split in (task.train, task.test))
    labels = task.test.labels.numpy()
    models, values, losses = logistic.compare_strengths((fit, task.train.labels.numpy()), (held, labels), (0.01, 1.0))
    expected = [log_loss(labels, model.predict_proba(held)) for model in models]
    assert losses == pytest.approx(expected) and values == [model.score(held, labels) for model in models]
    few = logistic.mean_loss(models[0], held[:2], np.array([1, 9]))  # class 9 was never seen
    first = -np.log(models[0].predict_proba(held[:1])[0, 1])
    assert few == pytest.approx((first - np.log(1e-12)) / 2)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, torch.Tensor) and not function.is_view:
                self.bytes = max(self.bytes, made.numel() * made.element_size())
        return result


def test_the_features_are_never_copied(blobs):
    """Of a large set they are most of the memory: nothing as large as a third of them is made."""
    task = blobs(1.0, train=40_000, test=300)
    with Largest() as made:
        outcome = linear(make_task(task.train, task.test), LinearOptions(learning_rates=(0.1,), epochs=1))
    features = task.train.features.numel() * 4
    assert "trained_anew" in outcome.selection and 0 < made.bytes < 0.3 * features  # the order, 8 bytes an image


def with_test_labels(task, labels):
    return make_task(task.train, task.test._replace(labels=labels), task.validation)


@pytest.mark.parametrize("validation", [0, 90])
@pytest.mark.parametrize("options", [FAST, FULL_BATCH])
def test_shuffled_test_labels_change_no_choice(blobs, options, validation):
    task = blobs(4.0, validation=validation)
    shuffled = task.test.labels[torch.randperm(len(task.test.labels), generator=torch.Generator().manual_seed(1))]
    honest, leaking = linear(task, options), linear(with_test_labels(task, shuffled), options)
    assert leaking.selection == honest.selection
    assert (leaking.predictions == honest.predictions).all()
    assert leaking.value < honest.value


def test_choosing_on_the_test_images_does_depend_on_their_labels(blobs):
    """The leak that the test above looks for is one that it would find."""
    task = blobs(4.0)
    shuffled = task.test.labels[torch.randperm(len(task.test.labels), generator=torch.Generator().manual_seed(1))]
    honest, leaking = (linear(one, FAST_ON_TEST) for one in (task, with_test_labels(task, shuffled)))
    assert leaking.selection["candidates"] != honest.selection["candidates"]


def test_constant_features_give_chance(blobs):
    task = blobs(1.0, test=400)
    flat = [part._replace(features=torch.ones_like(part.features)) for part in (task.train, task.test)]
    assert linear(make_task(*flat), FAST).value == pytest.approx(0.25)


def test_several_labels_an_image_are_measured_by_auroc():
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(8, 3, generator=generator)

    def split(count):
        features = torch.randn(count, 8, generator=generator)
        return Features(features, (features @ directions > 0).to(torch.uint8), [str(i) for i in range(count)])

    train, test = split(300), split(200)
    outcome = linear(make_task(train, test), FAST)
    assert outcome.metric == "macro_auroc" and outcome.value > 0.98
    assert outcome.interval[0] < outcome.value < outcome.interval[1]
    flat = [part._replace(features=torch.ones_like(part.features)) for part in (train, test)]
    assert linear(make_task(*flat), FAST).value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="one class an image"):
        linear(make_task(train, test), FULL_BATCH)


def test_hold_out_takes_of_every_class():
    labels = torch.arange(200) % 4
    fit, held = hold_out(labels)
    assert sorted(torch.cat([fit, held]).tolist()) == list(range(200))
    assert labels[held].bincount().tolist() == [5, 5, 5, 5]


def test_linear_accuracy_of_the_loop(blobs):
    task = blobs(0.5)
    found = linear_accuracy(task.train.features, task.train.labels, task.test.features, task.test.labels)
    assert found.accuracy == 1.0 and found.validation == 1.0
    unlabeled = task.train.labels.clone()
    unlabeled[:3] = -1
    with pytest.raises(ValueError, match="3 of 203 training images have no label"):
        linear_accuracy(task.train.features, unlabeled, task.test.features, task.test.labels)
    with pytest.raises(ValueError, match="1 of 1 test images have no label"):
        linear_accuracy(task.train.features, task.train.labels, task.test.features[:1], torch.tensor([-1]))


@pytest.mark.parametrize("limit", ["_MANY", "_FULL_BATCH"])
def test_large_sets_are_left_to_heads_which_do_as_well(blobs, monkeypatch, limit):
    task = blobs(3.0, train=4003, test=3001)
    arguments = (task.train.features, task.train.labels, task.test.features, task.test.labels)
    exact = linear_accuracy(*arguments)
    assert exact.strength in STRENGTHS
    monkeypatch.setattr(module, limit, 100)
    monkeypatch.setattr(logistic, "LogisticRegression", None)
    found = linear_accuracy(*arguments)
    assert found.strength in LEARNING_RATES and 0.5 < exact.accuracy < 0.99
    assert found.accuracy == pytest.approx(exact.accuracy, abs=0.01)


def test_linear_accuracy_warns_of_nothing(blobs, recwarn):
    task = blobs(3.0)
    few = torch.arange(203) // 2 % 90  # classes of two or three images, far from separable
    linear_accuracy(task.train.features, few, task.test.features, few[:151])
    assert [str(warning.message) for warning in recwarn.list] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rates": (0.0,)}, "learning_rates must be above 0"),
        ({"weight_decays": (-1.0,)}, "weight_decays must be 0 or above"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"head_batch_size": 0}, "head_batch_size must be at least 1"),
        ({"selection": "train"}, "validation, test"),
        ({"solver": "lbfgs", "images": "augmented"}, "sgd"),
    ],
)
def test_values_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LinearOptions(**options)
