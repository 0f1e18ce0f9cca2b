# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation with a linear head (BN, 1 x 1 convolution) on frozen patch tokens; IoU at full resolution.

B images, d width, h x w patches, C classes.
"""

import io
import time
from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from ..backbones import Backbone
from ..data import open_stream
from ..data.decode import open_image
from . import bootstrap
from .features import batches
from .metrics.mean_iou.mean_iou import class_counts, mean_iou_of_counts
from .processes import processes
from .results import make_result
from .task import Outcome
from .transform import EvaluationTransform, threaded, to_tensor, transform_for


IGNORED = 255  # pixels of this value, and those beyond the classes, count nowhere


@dataclass(frozen=True)
class SegmentSettings:
    """How the head is trained. The paper gives no segmentation protocol: these are ours.

    Attributes:
        num_classes: None counts those of the training masks.
        image_size: images are resized to this square; None for the model's native size.
    """

    num_classes: int | None = None
    ignore_index: int = IGNORED
    image_size: int | None = None
    epochs: int = 20
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self):
        if min(self.epochs, self.batch_size) < 1 or self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(
                "epochs and batch_size must be at least 1, learning_rate above 0, weight_decay not negative"
            )
        if self.num_classes is not None and not 2 <= self.num_classes <= 255:
            raise ValueError(f"num_classes must be from 2 to 255, got {self.num_classes}")


def add_segment_options(parser: ArgumentParser) -> None:
    defaults = SegmentSettings()
    parser.add_argument("--mask_column", default="mask", help="images whose values are classes (default mask)")
    parser.add_argument("--num_classes", type=int, help="default: counted in the training masks")
    parser.add_argument(
        "--ignore_index", type=int, default=IGNORED, help=f"value that counts nowhere (default {IGNORED})"
    )
    parser.add_argument("--image_size", type=int, help="pixels; default: the model's native size")
    parser.add_argument("--epochs", type=int, default=defaults.epochs, help=f"(default {defaults.epochs})")
    parser.add_argument("--learning_rate", type=float, default=defaults.learning_rate, help="AdamW (default 1e-3)")
    parser.add_argument("--weight_decay", type=float, default=defaults.weight_decay, help="(default 1e-4)")
    parser.add_argument("--batch_size", type=int, default=defaults.batch_size, help=f"(default {defaults.batch_size})")
    parser.add_argument("--seed", type=int, default=0, help="(default 0)")


class Masks:
    """Pairs of image and mask: two sources of the same rows, of which the second reads the mask column."""

    def __init__(self, images: Any, masks: Any, transform: EvaluationTransform, ignore_index: int = IGNORED):
        self.images, self.masks = images, masks
        self.transform, self.ignore_index = transform, ignore_index

    def __len__(self) -> int:
        return self.images.num_examples

    def pair(self, index: int) -> tuple[torch.Tensor, np.ndarray]:
        """uint8 (C, S, S) and the mask (H, W) at full resolution, int64."""
        raw = self.images.example(index)
        height, width = self.transform.size
        image = open_image(raw.data, raw.path).load().resize((width, height), Image.Resampling.BICUBIC)
        return to_tensor(image), self.mask(index)

    def mask(self, index: int) -> np.ndarray:
        raw = self.masks.example(index)
        with Image.open(raw.path if raw.data is None else io.BytesIO(raw.data)) as image:
            values = np.array(image)
        if values.ndim != 2:
            raise ValueError(f"mask {index} has {values.shape[-1]} channels: masks hold one class a pixel")
        values = values.astype(np.int64)
        return np.where(values == self.ignore_index, IGNORED, values)


def segment(model: Backbone, options: Any) -> dict[str, Any] | None:
    """From parsed options (`add_segment_options`, and those of model and data) to a result; the main process works.

    Raises:
        ValueError: the data or an option is not what the protocol needs.
    """
    settings = SegmentSettings(
        options.num_classes, options.ignore_index, options.image_size, options.epochs, options.learning_rate,
        options.weight_decay, options.batch_size, options.seed,
    )  # fmt: skip
    if options.train_split == options.test_split:
        raise ValueError("train and test have to be different splits: one would leak into the other")
    train, test = (open_pair(options, split) for split in (options.train_split, options.test_split))
    if not processes().is_main_process:
        return None
    transform = transform_for(model.to(processes().device), settings.image_size)
    started = time.perf_counter()
    pairs = [Masks(*pair, transform, settings.ignore_index) for pair in (train, test)]
    outcome = segment_masks(model, *pairs, settings)
    data = {"train": train[0].description(), "test": test[0].description()}
    seconds = {"total": time.perf_counter() - started}
    features = {"patch_tokens": "last block", "size": list(transform.size), "resize": "whole image"}
    return make_result("segment", outcome, model.description(), data, features, seconds)


def open_pair(options: Any, split: str) -> tuple[Any, Any]:
    """Images and masks of a split."""
    common = {name: getattr(options, name) for name in ("dataset_config", "revision")}
    common |= {"split": split, "streaming": False}
    images = open_stream(options.dataset, image_column=options.image_column, **common)
    try:
        return images, open_stream(options.dataset, image_column=options.mask_column, **common)
    except ValueError as error:
        raise ValueError(str(error).replace("image_column", "mask_column")) from error


def segment_masks(model: Backbone, train: Masks, test: Masks, settings: SegmentSettings) -> Outcome:
    """Trains the head on `train` and counts pixels on `test`."""
    classes = settings.num_classes or count_classes(train)
    head = train_head(model, train, classes, settings)
    counts = test_counts(model, head, test, classes, settings.batch_size)
    per_class = counts.sum(0)

    def statistic(weights: np.ndarray) -> float:
        return mean_iou_of_counts(np.tensordot(weights, counts, 1))

    interval = bootstrap.of_statistic(statistic, len(counts), settings.seed)
    metrics = {"num_classes": classes, "classes_seen": int((per_class[1] > 0).sum())}
    described = {
        name: getattr(settings, name) for name in ("epochs", "learning_rate", "weight_decay", "batch_size", "seed")
    }
    described |= {"optimizer": "AdamW, cosine", "head": "BN, 1 x 1 convolution", "augmentation": "horizontal flip"}
    return Outcome("mean_iou", mean_iou_of_counts(per_class), interval, metrics, settings=described)


def count_classes(masks: Masks) -> int:
    """One more than the highest class of the masks."""
    highest = -1
    for mask in threaded(masks.mask, range(len(masks))):
        known = mask[mask != IGNORED]
        highest = max(highest, int(known.max()) if known.size else -1)
    if highest < 1:
        raise ValueError("the training masks hold fewer than two classes")
    return highest + 1


def train_head(model: Backbone, train: Masks, classes: int, settings: SegmentSettings) -> nn.Module:
    """BN and 1 x 1 convolution on (B, d, h, w); the loss is taken at the resolution of the images."""
    torch.manual_seed(settings.seed)
    sample = train.pair(0)[0][None].to(model.device)
    with torch.no_grad():
        width = model.patch_map(train.transform.normalise(sample)).shape[1]
    head = nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1)).to(model.device)
    optimizer = torch.optim.AdamW(head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    count = -(-len(train) // settings.batch_size)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * count)
    for _epoch in range(settings.epochs):
        for rows in torch.randperm(len(train)).tensor_split(count):
            pixels, targets = training_batch(train, rows.tolist(), classes)
            with torch.no_grad():  # patch_map refuses a network in training mode
                tokens = model.patch_map(train.transform.normalise(pixels.to(model.device)))
            logits = functional.interpolate(head(tokens), size=targets.shape[1:], mode="bilinear")
            loss = functional.cross_entropy(logits, targets.to(model.device), ignore_index=IGNORED, reduction="sum")
            known = (targets != IGNORED).sum().clamp(min=1)
            optimizer.zero_grad()
            (loss / known.to(loss.device)).backward()
            optimizer.step()
            scheduler.step()
    return head.eval()


def training_batch(train: Masks, rows: list[int], classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (B, C, S, S) and masks (B, S, S), half of the images mirrored."""
    images, masks = [], []
    for pixels, mask in threaded(train.pair, rows):
        square = functional.interpolate(torch.from_numpy(mask)[None, None].float(), size=train.transform.size)[
            0, 0
        ].long()
        square[square >= classes] = IGNORED
        flip = bool(torch.rand(()) < 0.5)
        images.append(pixels.flip(-1) if flip else pixels)
        masks.append(square.flip(-1) if flip else square)
    return torch.stack(images), torch.stack(masks)


@torch.no_grad()
def test_counts(model: Backbone, head: nn.Module, test: Masks, classes: int, batch_size: int) -> np.ndarray:
    """(n, 2, C) pixels in the intersection and the union of each class, at the resolution of each mask."""
    counts = []
    for images, masks in batches(threaded(test.pair, range(len(test)), ahead=64), batch_size):
        tokens = model.patch_map(test.transform.normalise(torch.stack(images).to(model.device)))
        for logits, mask in zip(head(tokens), masks, strict=True):
            full = functional.interpolate(logits[None], size=mask.shape, mode="bilinear")[0]
            truth = np.where(mask >= classes, IGNORED, mask)
            counts.append(class_counts(full.argmax(0).cpu().numpy(), truth, classes, IGNORED))
    return np.stack(counts)
