# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""All learning rates as one product against as many heads with one optimizer each, on cached features.

    python -m benchmarks.evaluation                                   random features of CIFAR-10's size
    python -m benchmarks.evaluation --train a.safetensors --test b.safetensors    those of `visreg features`

n images, d features (4 layers of a ViT-S: 1536), H = 13 heads, C classes.
"""

import argparse
import json
import time

import torch
from safetensors.torch import load_file
from torch import nn

from visreg_training.evaluation.heads import EPS, LEARNING_RATES, MOMENTUM, BatchedHeads, schedule, train_heads


def random_features(count: int, width: int, classes: int, generator: torch.Generator):
    """Features (n, d) whose classes overlap, so that learning rates differ in accuracy."""
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(0)) * 0.1
    labels = torch.randint(0, classes, (count,), generator=generator)
    return centers[labels] + torch.randn(count, width, generator=generator), labels


def separate_heads(
    features, labels, classes: int, epochs: int, batch_size: int, first: torch.Tensor, rates=LEARNING_RATES
) -> list[nn.Module]:
    """One module and one SGD each, fed with the same batches in one loop."""
    heads, optimizers = [], []
    for rate in rates:
        head = nn.Sequential(
            nn.BatchNorm1d(features.shape[1], eps=EPS, affine=False), nn.Linear(features.shape[1], classes)
        )
        nn.init.zeros_(head[1].bias)
        with torch.no_grad():
            head[1].weight.copy_(first)
        heads.append(head)
        optimizers.append(torch.optim.SGD(head.parameters(), rate, momentum=MOMENTUM))
    generator = torch.Generator().manual_seed(0)
    count = -(-len(features) // batch_size)
    for epoch in range(epochs):
        for number, rows in enumerate(torch.randperm(len(features), generator=generator).tensor_split(count)):
            factor = schedule(epoch * count + number, epochs * count, batch_size)
            inputs, targets = features[rows], labels[rows]
            for head, optimizer, rate in zip(heads, optimizers, rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate * factor
                loss = nn.functional.cross_entropy(head(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return [head.eval() for head in heads]


@torch.no_grad()
def accuracies(scores: list[torch.Tensor], labels: torch.Tensor) -> list[float]:
    return [(one.argmax(1) == labels).float().mean().item() for one in scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", help="features of `visreg features`")
    parser.add_argument("--test", help="features of `visreg features`")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=256)
    options = parser.parse_args()
    if options.train:
        files = [load_file(path) for path in (options.train, options.test)]
        (train, labels), (test, truth) = ((file["features"], file["labels"]) for file in files)
    else:
        generator = torch.Generator().manual_seed(1)
        train, labels = random_features(options.images, options.width, options.classes, generator)
        test, truth = random_features(10_000, options.width, options.classes, generator)
    classes = int(labels.max()) + 1
    few = slice(0, 4 * options.batch_size)  # threads and memory are made ready for both
    fresh = BatchedHeads(train.shape[1], classes)
    separate_heads(train[few], labels[few], classes, 2, options.batch_size, fresh.weight[:classes])
    train_heads(fresh, train[few], labels[few], 2, options.batch_size)
    batched = BatchedHeads(train.shape[1], classes)
    first = batched.weight[:classes].clone()
    started = time.perf_counter()
    train_heads(batched, train, labels, options.epochs, options.batch_size)
    fast = time.perf_counter() - started
    started = time.perf_counter()
    heads = separate_heads(train, labels, classes, options.epochs, options.batch_size, first)
    slow = time.perf_counter() - started
    with torch.no_grad():
        theirs = accuracies([head(test) for head in heads], truth)
    ours = accuracies(list(torch.cat(list(batched.scores(test))).unbind(1)), truth)
    started = time.perf_counter()  # one of 13 trainings by itself, each of which gathers its batches anew
    separate_heads(train, labels, classes, options.epochs, options.batch_size, first, LEARNING_RATES[:1])
    apart = (time.perf_counter() - started) * len(LEARNING_RATES)
    result = {
        "images": len(train), "width": train.shape[1], "classes": classes, "epochs": options.epochs,
        "threads": torch.get_num_threads(), "batched_seconds": round(fast, 2),
        "separate_seconds": round(slow, 2), "separate_one_by_one_seconds": round(apart, 2),
        "speedup": round(slow / fast, 2), "speedup_one_by_one": round(apart / fast, 2),
        "largest_accuracy_difference": round(max(abs(a - b) for a, b in zip(ours, theirs, strict=True)), 5),
        "accuracies": [round(value, 4) for value in ours],
    }  # fmt: skip
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
