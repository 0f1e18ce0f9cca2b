# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation with a linear head (BN, 1 x 1 convolution) on frozen patch tokens; IoU at full resolution.

B images, d width, h x w patches, C classes. The paper gives no segmentation protocol: the values are ours.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from ...backbones import Backbone
from ...data import Source
from ...data.decode import BadImage, open_image
from ...option import NOT_NEGATIVE, POSITIVE, Range, check_options, option
from ...seeding import seed_of
from .. import intervals
from ..features import AT_LEAST_ONE, batches
from ..inputs import Inputs, on_main_process
from ..metrics import class_counts, mean_iou_of_counts
from ..outcome import Outcome
from ..preprocessing import EvaluationTransform, threaded, to_tensor, transform_for
from . import Protocol


IGNORED = 255  # pixels of this value, and those beyond the classes, count nowhere


@dataclass(frozen=True)
class SegmentOptions:
    """How the head is trained.

    Raises:
        ValueError: a value is out of range.
    """

    mask_column: str = option("mask", "images whose values are classes; `open_sources` opens them")
    num_classes: int | None = option(
        None, "default: counted in the training masks", Range(lambda value: 2 <= value <= 255, "be from 2 to 255")
    )
    ignore_index: int = option(IGNORED, "value of a mask that counts nowhere")
    image_size: int | None = option(None, "pixels of a side; default: the model's native size", AT_LEAST_ONE)
    epochs: int = option(20, "passes over the training images", AT_LEAST_ONE)
    learning_rate: float = option(1e-3, "of AdamW", POSITIVE)
    weight_decay: float = option(1e-4, "of AdamW", NOT_NEGATIVE)
    batch_size: int = option(16, "images of an update", AT_LEAST_ONE)
    seed: int = option(0, "of all that is drawn")

    def __post_init__(self):
        check_options(self)


def evaluate(inputs: Inputs, options: SegmentOptions) -> Outcome | None:
    """Segmentation; the main process works.

    Raises:
        ValueError: the sources have no masks.
    """
    if inputs.sources.masks is None:
        raise ValueError("segmentation needs masks: open the sources with mask_column, and with two splits")
    transform = transform_for(inputs.backbone, options.image_size)
    images, masks = (inputs.sources.train, inputs.sources.test), inputs.sources.masks
    train, test = (Masks(*pair, transform, options.ignore_index) for pair in zip(images, masks, strict=True))
    outcome = on_main_process(lambda: segment(inputs.backbone, train, test, options))
    if outcome is not None:
        outcome.features = {"patch_tokens": "last block", "size": list(transform.size), "resize": "whole image"}
    return outcome


PROTOCOL = Protocol(
    "linear head on frozen patch tokens, mean IoU", SegmentOptions, evaluate, takes_features=False, in_suites=False
)


class Masks:
    """Pairs of image and mask: two sources of the same rows, of which the second reads the mask column."""

    def __init__(self, images: Source, masks: Source, transform: EvaluationTransform, ignore_index: int = IGNORED):
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
        try:
            values = np.array(open_image(raw.data, raw.path).load_values())
        except BadImage as error:
            raise ValueError(f"mask {index} cannot be read: {error}") from error
        if values.ndim != 2:
            raise ValueError(f"mask {index} has {values.shape[-1]} channels: masks hold one class a pixel")
        values = values.astype(np.int64)
        return np.where(values == self.ignore_index, IGNORED, values)


def segment(backbone: Backbone, train: Masks, test: Masks, options: SegmentOptions) -> Outcome:
    """Trains the head on `train` and counts pixels on `test`."""
    classes = options.num_classes or count_classes(train)
    head = train_head(backbone, train, classes, options)
    counts = test_counts(backbone, head, test, classes, options.batch_size)
    per_class = counts.sum(0)

    def statistic(weights: np.ndarray) -> float:
        return mean_iou_of_counts(np.tensordot(weights, counts, 1))

    interval = intervals.of_statistic(statistic, len(counts), options.seed)
    metrics = {"num_classes": classes, "classes_seen": int((per_class[1] > 0).sum())}
    described = {
        name: getattr(options, name) for name in ("epochs", "learning_rate", "weight_decay", "batch_size", "seed")
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


def train_head(backbone: Backbone, train: Masks, classes: int, options: SegmentOptions) -> nn.Module:
    """BN and 1 x 1 convolution on (B, d, h, w); the loss is taken at the resolution of the images."""
    torch.manual_seed(seed_of("segment", options.seed))
    sample = train.pair(0)[0][None].to(backbone.device)
    with torch.no_grad():
        width = backbone.patch_map(train.transform.normalize(sample)).shape[1]
    head = nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1)).to(backbone.device)
    optimizer = torch.optim.AdamW(head.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    count = -(-len(train) // options.batch_size)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * count)
    for _epoch in range(options.epochs):
        for rows in torch.randperm(len(train)).tensor_split(count):
            pixels, targets = training_batch(train, rows.tolist(), classes)
            with torch.no_grad():  # patch_map refuses a network in training mode
                tokens = backbone.patch_map(train.transform.normalize(pixels.to(backbone.device)))
            logits = functional.interpolate(head(tokens), size=targets.shape[1:], mode="bilinear")
            loss = functional.cross_entropy(logits, targets.to(backbone.device), ignore_index=IGNORED, reduction="sum")
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
def test_counts(backbone: Backbone, head: nn.Module, test: Masks, classes: int, batch_size: int) -> np.ndarray:
    """(n, 2, C) pixels in the intersection and the union of each class, at the resolution of each mask."""
    counts = []
    for images, masks in batches(threaded(test.pair, range(len(test)), ahead=64), batch_size):
        tokens = backbone.patch_map(test.transform.normalize(torch.stack(images).to(backbone.device)))
        for logits, mask in zip(head(tokens), masks, strict=True):
            full = functional.interpolate(logits[None], size=mask.shape, mode="bilinear")[0]
            truth = np.where(mask >= classes, IGNORED, mask)
            counts.append(class_counts(full.argmax(0).cpu().numpy(), truth, classes, IGNORED))
    return np.stack(counts)
