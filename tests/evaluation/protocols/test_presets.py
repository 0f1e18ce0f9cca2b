# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Published protocols: each preset against a loop that is written here, with PyTorch's own modules and schedules."""

import random

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn

from visreg_training.backbones import open_backbone
from visreg_training.commands import evaluate as command
from visreg_training.data import Subset, open_stream
from visreg_training.errors import UserError
from visreg_training.evaluation.augmented import AugmentedImages
from visreg_training.evaluation.features import Features
from visreg_training.evaluation.inputs import Inputs
from visreg_training.evaluation.preprocessing import transform_for
from visreg_training.evaluation.protocols import preset_of, preset_options
from visreg_training.evaluation.protocols.fewshot import draw_rows
from visreg_training.evaluation.protocols.knn import knn
from visreg_training.evaluation.protocols.linear import RELEASED, LinearOptions, linear, linear_on_images
from visreg_training.evaluation.reports.compare import compare
from visreg_training.evaluation.reports.results import read_result
from visreg_training.evaluation.run import evaluate
from visreg_training.evaluation.splits import Sources, load_task, make_task, share_of_each_class
from visreg_training.seeding import numpy_generator, torch_generator


RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.3, 0.5)


def head(width: int, classes: int, norm: bool, seed: int = 0) -> nn.Sequential:
    """BN with PyTorch's defaults, or nothing, and Linear; the first weights are the package's."""
    made = nn.Sequential(nn.BatchNorm1d(width) if norm else nn.Identity(), nn.Linear(width, classes))
    first = torch.randn(width, classes, generator=torch_generator("heads", seed)) * 0.01
    with torch.no_grad():
        made[1].weight.copy_(first.T)
        made[1].bias.zero_()
    return made


def released_heads(batches, width: int, classes: int, epochs: int, multi_label: bool = False, seed: int = 0) -> list:
    """The release's linear heads: `batches(epoch)` gives (features, labels) of each batch of 32, the last left
    out. One module, optimizer and cosine (stepped once an epoch) a rate.
    """
    modules = [head(width, classes, True, seed) for _rate in RATES]
    optimizers = [torch.optim.SGD(m.parameters(), r * 32 / 256, 0.9) for m, r in zip(modules, RATES, strict=True)]
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs) for optimizer in optimizers]
    loss = nn.BCEWithLogitsLoss() if multi_label else nn.CrossEntropyLoss()
    for epoch in range(epochs):
        for features, labels in batches(epoch):
            assert len(features) == 32
            for module, optimizer in zip(modules, optimizers, strict=True):
                optimizer.zero_grad()
                loss(module(features), labels.float() if multi_label else labels).backward()
                optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return [module.eval() for module in modules]


def order_of(rows: torch.Tensor, epochs: int, seed: int = 0) -> list[list[torch.Tensor]]:
    """The images of each batch of each epoch: shuffled, batches of 32, the last one dropped."""
    generator = torch_generator("heads_order", seed)
    orders = [rows[torch.randperm(len(rows), generator=generator)] for _epoch in range(epochs)]
    return [[batch for batch in order.split(32) if len(batch) == 32] for order in orders]


@pytest.fixture(scope="module")
def digits(checkpoint, shared_cache):
    """The model, 150 training and 100 test digits, and their features as the preset takes them."""
    backbone = open_backbone(checkpoint)
    train = open_stream("digits", subset=Subset(images_per_class=15))
    test = open_stream("digits", split="test", subset=Subset(images_per_class=10))
    options, features = preset_options("linear", "released")
    sources = Sources(train, test)
    inputs = Inputs(backbone, sources, features, shared_cache)
    return inputs, load_task(backbone, sources, features, shared_cache), options


def test_released_linear_is_that_of_one_module_a_rate(digits):
    inputs, task, options = digits
    epochs = 3
    options = LinearOptions(**{**options.__dict__, "epochs": epochs})
    found = linear_on_images(inputs, task, options)
    images = AugmentedImages(
        inputs.backbone, inputs.sources.train, task, transform_for(inputs.backbone), inputs.features, 0
    )
    batches = order_of(torch.arange(150), epochs)
    assert [len(of_epoch) for of_epoch in batches] == [4] * epochs  # 22 images of each epoch are dropped
    modules = released_heads(
        lambda epoch: (images.batch(rows, epoch) for rows in batches[epoch]), images.width, 10, epochs
    )
    with torch.no_grad():
        right = [(m(task.test.features).argmax(1) == task.test.labels).float().mean().item() for m in modules]
    assert [entry["value"] for entry in found.selection["candidates"]] == pytest.approx(right, abs=0.011)
    assert found.selection["on"] == "test" and found.value == pytest.approx(max(right), abs=0.011)
    assert found.settings["head"] == "affine BN, Linear" and found.settings["optimizer"].endswith("cosine by epoch")


def several(count: int, seed: int) -> Features:
    """Images with 15 labels, the last of which is rare."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 8, generator=generator)
    mix = torch.randn(8, 15, generator=torch.Generator().manual_seed(9))
    labels = (features @ mix + torch.randn(count, 15, generator=generator) > 1.5).to(torch.uint8)
    return Features(features, labels, [str(number) for number in range(count)])


def test_released_protocol_of_several_labels_is_an_exact_match_of_the_first_14_and_chosen_by_auroc():
    train, test = several(200, 0), several(300, 1)
    values = RELEASED | {"epochs": 2, "images": "cached"}
    options = LinearOptions(**{name: value for name, value in values.items() if name in LinearOptions.__dict__})
    found = linear(make_task(train, test), options)
    batches = order_of(torch.arange(200), 2)
    modules = released_heads(
        lambda epoch: ((train.features[rows], train.labels[rows, :14]) for rows in batches[epoch]),
        8, 14, 2, multi_label=True,
    )  # fmt: skip
    truth = test.labels[:, :14].numpy()
    with torch.no_grad():
        probabilities = [module(test.features).sigmoid().numpy() for module in modules]
    areas = [metrics.roc_auc_score(truth, scores) for scores in probabilities]
    assert [entry["value"] for entry in found.selection["candidates"]] == pytest.approx(areas, abs=1e-4)
    predicted = probabilities[int(np.argmax(areas))] > 0.5
    assert found.metric == "exact_match" and found.value == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert found.metrics == {
        "macro_auroc": pytest.approx(max(areas), abs=1e-4),
        "macro_precision": pytest.approx(metrics.precision_score(truth, predicted, average="macro", zero_division=0)),
        "macro_recall": pytest.approx(metrics.recall_score(truth, predicted, average="macro", zero_division=0)),
    }


def test_dinov2_linear_has_no_batch_norm_and_its_own_rates(blobs):
    task = blobs(1.0)
    options, _features = preset_options("linear", "dinov2")
    assert options.learning_rates == (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
    options = LinearOptions(**{**options.__dict__, "epochs": 4, "images": "cached", "selection": "test"})
    found = linear(task, options)
    values = []
    for rate in options.learning_rates:
        module = head(8, 4, norm=False)
        optimizer = torch.optim.SGD(module.parameters(), rate * 256 / 256, 0.9)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)  # an epoch is one batch
        generator = torch_generator("heads_order", 0)
        for _epoch in range(4):
            rows = torch.randperm(203, generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(task.train.features[rows]), task.train.labels[rows]).backward()
            optimizer.step()
            scheduler.step()
        with torch.no_grad():
            values.append((module(task.test.features).argmax(1) == task.test.labels).float().mean().item())
    assert [entry["value"] for entry in found.selection["candidates"]] == pytest.approx(values, abs=0.007)
    assert len(set(values)) > 3


def test_dinov2_knn_is_the_best_of_four_on_the_last_block(blobs):
    task = blobs(4.0)
    options, features = preset_options("knn", "dinov2")
    assert (features.layers, features.pooling) == (1, "cls")
    shares = []
    for k in (10, 20, 100, 200):
        similarity = nn.functional.normalize(task.test.features) @ nn.functional.normalize(task.train.features).T
        top, index = similarity.topk(k)
        votes = torch.zeros(151, 4).scatter_add_(1, task.train.labels[index], (top / 0.07).exp())
        shares.append((votes.argmax(1) == task.test.labels).float().mean().item())
    found = knn(task, options)
    assert [entry["value"] for entry in found.selection["candidates"]] == pytest.approx(shares)
    assert found.value == pytest.approx(max(shares)) and found.selection["on"] == "test"


def test_released_fewshot_trains_the_same_heads_on_one_draw(digits):
    inputs, task, _options = digits
    options, features = preset_options("fewshot", "released")
    assert (options.shots, options.draws, options.seed, features.precision) == ((1, 10), 1, 42, "bfloat16")
    result = evaluate(inputs.backbone, inputs.sources, options, features, inputs.cache)
    assert result["settings"]["protocol"] == "released" and result["selection"]["on"] == "test"
    assert result["notes"] == ["1 shots: no step was taken: 10 training images make no batch of 32"]
    images = AugmentedImages(
        inputs.backbone, inputs.sources.train, task, transform_for(inputs.backbone), inputs.features, 42
    )
    rows = torch.from_numpy(draw_rows(task.train.labels, 10, numpy_generator("fewshot", 42, 0)))
    assert task.train.labels[rows].bincount().tolist() == [10] * 10
    batches = order_of(rows, 100, seed=42)
    modules = released_heads(
        lambda epoch: (images.batch(some, epoch) for some in batches[epoch]), images.width, 10, 100, seed=42
    )
    with torch.no_grad():
        right = [(m(task.test.features).argmax(1) == task.test.labels).float().mean().item() for m in modules]
    assert result["value"] == pytest.approx(max(right), abs=0.011)
    assert result["metrics"]["1_shot"]["value"] == pytest.approx(0.1, abs=0.1)


def test_the_share_of_each_class_is_that_of_pythons_shuffle():
    labels = torch.tensor([0, 1] * 30 + [1] * 10)
    train, test = share_of_each_class(labels, 0.1)
    shuffled, expected = random.Random(42), []
    for number in (0, 1):
        rows = [row for row, label in enumerate(labels.tolist()) if label == number]
        shuffled.shuffle(rows)
        expected += rows[: len(rows) // 10]
    assert train.tolist() == sorted(expected) and labels[train].bincount().tolist() == [3, 4]
    assert sorted(train.tolist() + test.tolist()) == list(range(70))
    with pytest.raises(ValueError, match="of the 30 images of class 0 is none"):
        share_of_each_class(labels, 0.01)


def test_published_split_files_say_which_images_are_trained_on(checkpoint, shared_cache, tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    for name in ("braided", "dotted"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (16, 16), (40 * number, 9, 200 * (name == "dotted"))).save(
                folder / name / f"{name}_{number}.png"
            )
    for split, numbers in (("train1", (0, 2, 4)), ("test1", (1, 3))):
        lines = [f"{name}/{name}_{number}.png" for name in ("braided", "dotted") for number in numbers]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    lists = ["--train_list", str(tmp_path / "train1.txt"), "--test_list", str(tmp_path / "test1.txt")]
    arguments = ["knn", "--model", checkpoint, "--dataset", str(folder), "--test_split", "train", "--k", "1"]
    arguments += ["--cache_dir", str(shared_cache.folder)]
    command.main([*arguments, *lists, "--output", str(tmp_path / "out.json")])
    result = read_result(tmp_path / "out.json")
    assert (result["data"]["train_images"], result["data"]["test_images"]) == (6, 4) and result["notes"] == []
    with pytest.raises(UserError, match="different splits"):
        command.main([*arguments, *lists[:2]])


def test_a_preset_is_named_where_every_option_agrees_and_flags_override_it(checkpoint, shared_cache, tmp_path):
    options, features = preset_options("knn", "dinov2")
    assert preset_of(options, features) == "dinov2"
    arguments = ["knn", "--model", checkpoint, "--dataset", "digits", "--protocol", "dinov2"]
    arguments += ["--cache_dir", str(shared_cache.folder), "--output", str(tmp_path)]
    command.main(arguments)
    result = read_result(tmp_path / "knn-digits-test-dinov2-chosen-on-test.json")
    assert "dinov2 protocol; chosen on test" in compare([result])
    command.main([*arguments, "--k", "5"])
    assert read_result(tmp_path / "knn-digits-test.json")["settings"]["protocol"] is None
    suite = ["suite", "--protocol", "knn:dinov2", "--suite", "dtd", "--source", "dtd=digits", "--model", checkpoint]
    command.main([*suite, "--cache_dir", str(shared_cache.folder), "--output", str(tmp_path / "suite")])
    assert read_result(tmp_path / "suite" / "knn-dtd.json")["value"] == result["value"]
    for words, mistake in (("invalid choice", ["--protocol", "dino"]), ("unrecognized", [])):
        with pytest.raises(UserError, match=words):
            command.main(["retrieval" if not mistake else "knn", *arguments[1:], *mistake])
    with pytest.raises(ValueError, match="knows released, dinov2, not 'dino'"):
        preset_options("linear", "dino")
