# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation with a linear head (BN, 1 x 1 convolution) on frozen patch tokens.

B images, d width, h x w patches, C classes, S pixels of a side. The defaults are ours: the whole image, tested at full
resolution. The presets are the release's protocol for ADE20K, where its text leaves nothing open.
"""

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from ...backbones import Backbone
from ...data import MultiCrop, Source
from ...data.decode import BadImage, RawExample
from ...errors import BadDataError
from ...option import NOT_NEGATIVE, POSITIVE, SEED, SHARES, Range, check_options, option
from ...progress import tracked
from ...run_folder import Json
from ...seeding import image_generator, seed_of
from .. import intervals
from ..features import batches, check_finite
from ..inputs import Inputs, on_main_process
from ..metrics import class_counts
from ..options import AT_LEAST_ONE, PASSES, PIXELS, SIDES, SIDES_HELP, side_or_sides
from ..outcome import Outcome, select
from ..preprocessing import EvaluationTransform, threaded, to_tensor, transform_for
from ..splits import overlap_note
from . import Protocol


IGNORED = 255  # pixels of this value, and those beyond the classes, count nowhere
_POWER = 0.9  # of the polynomial decay (release)


@dataclass(frozen=True)
class SegmentOptions:
    """How the head is trained and tested.

    Raises:
        ValueError: a value is out of range.
    """

    mask_column: str = option("mask", "images whose values are classes; `open_sources` opens them")
    mask_folder: str | None = option(None, "folder of masks that are named as the images, in place of a column")
    num_classes: int | None = option(
        None, "default: counted in the training masks", Range(lambda value: 2 <= value <= 255, "be from 2 to 255")
    )
    ignore_index: int = option(IGNORED, "value of a mask that counts nowhere")
    reduce_labels: bool = option(False, "0 of a mask counts nowhere, and 1 is the first class (release, ADE20K)")
    image_size: int | tuple[int, ...] | None = option(None, SIDES_HELP, SIDES)
    min_size: int | None = option(None, "instead: pixels, rounded up to whole patches (release: 512)", PIXELS)
    layers: int = option(1, "blocks from the end, concatenated", AT_LEAST_ONE)
    crop_scale: tuple[float, float] = option(
        (1.0, 1.0), "area of random resized crops, ratio 3/4 to 4/3 (release: 0.5 to 1); 1 1: the whole image", SHARES
    )
    epochs: int = option(20, "passes over the training images", PASSES)
    learning_rate: float = option(1e-3, "of AdamW", POSITIVE)
    weight_decay: float = option(1e-4, "of AdamW", NOT_NEGATIVE)
    decay: str = option(
        "cosine", "of the learning rate with each update; poly: power 0.9 (release)", ("cosine", "poly")
    )
    batch_size: int = option(16, "images of an update", AT_LEAST_ONE)
    weights: str = option("last", "epoch that is reported; best: on the test images (release)", ("last", "best"))
    tested_at: str = option("mask", "resolution of each mask, or of the crop (release)", ("mask", "crop"))
    averaged: str = option("all", "classes that stand in truth or prediction, or in truth (release)", ("all", "truth"))
    scales: tuple[float, ...] = option(
        (1.0,), "sizes of a test image whose probabilities are averaged",
        Range(lambda values: values and min(values) > 0, "be above 0"),
    )  # fmt: skip
    flips: bool = option(False, "average those of the mirrored image too")
    seed: int = option(0, "of all that is drawn", SEED)

    def __post_init__(self):
        object.__setattr__(self, "image_size", side_or_sides(self.image_size))
        check_options(self)
        if self.image_size is not None and self.min_size is not None:
            raise ValueError("min_size: goes with no image_size")

    def pixels(self, backbone: Backbone) -> int | tuple[int, ...] | None:
        """`image_size`, or `min_size` rounded up to whole patches."""
        if self.min_size is None:
            return self.image_size
        patch = backbone.patch_size or 1
        return -(-self.min_size // patch) * patch


def evaluate(inputs: Inputs, options: SegmentOptions) -> Outcome | None:
    """Segmentation; the main process works.

    Raises:
        ValueError: the sources have no masks, or what the model gives is not finite.
    """
    if inputs.sources.masks is None:
        raise ValueError("segmentation needs masks: open the sources with mask_column, and with two splits")
    transform = transform_for(inputs.backbone, options.pixels(inputs.backbone))
    images, masks = (inputs.sources.train, inputs.sources.test), inputs.sources.masks
    train, test = (Masks(*pair, transform, options) for pair in zip(images, masks, strict=True))
    outcome = on_main_process(lambda: segment(inputs.backbone, train, test, options))
    if outcome is not None:
        resize = "whole image" if options.crop_scale == (1.0, 1.0) else "random resized crops"
        taken = f"last {options.layers} blocks" if options.layers > 1 else "last block"
        outcome.features = {"patch_tokens": taken, "size": list(transform.size), "resize": resize}
    return outcome


RELEASED = {
    "reduce_labels": True, "min_size": 512, "layers": 1, "crop_scale": (0.5, 1.0), "epochs": 40,
    "learning_rate": 2e-3, "decay": "poly", "batch_size": 16, "weights": "best", "tested_at": "crop",
    "averaged": "truth", "scales": (1.0,), "flips": False,
}  # fmt: skip
RELEASED_MS = RELEASED | {"min_size": 640, "layers": 4, "scales": (0.5, 0.75, 1.0, 1.25, 1.5), "flips": True}
PROTOCOL = Protocol(
    "linear head on frozen patch tokens, mean IoU", SegmentOptions, evaluate, takes_features=False, in_suites=False,
    presets={"released": RELEASED, "released_ms": RELEASED_MS},
)  # fmt: skip


class Masks:
    """Pairs of image and mask: two sources of the same rows, of which the second reads the masks."""

    def __init__(
        self, images: Source, masks: Source, transform: EvaluationTransform, options: SegmentOptions | None = None
    ):
        self.images, self.masks, self.transform = images, masks, transform
        self.options = options or SegmentOptions()
        self.crop = MultiCrop(
            num_global=1, num_local=0, global_size=transform.size[0], global_scale=self.options.crop_scale
        )
        if transform.size[0] != transform.size[1] and self.options.crop_scale != (1.0, 1.0):
            height, width = transform.size
            raise ValueError(f"crops are square, not {height} x {width}: give --image_size one number")

    def __len__(self) -> int:
        return self.images.num_examples

    def name(self, index: int) -> str:
        return self.images.example(index).id

    def pair(self, index: int) -> tuple[torch.Tensor, np.ndarray]:
        """uint8 (C, S, S) of the whole image, and the mask (H, W) at full resolution, int64."""
        raw = self.images.example(index)
        height, width = self.transform.size
        image = self.image(raw).resize((width, height), Image.Resampling.BICUBIC)
        return to_tensor(image), self.mask(index)

    def image(self, raw: RawExample) -> Image.Image:
        """Raises BadDataError, with its name, for an image that cannot be read: its mask would count without it."""
        try:
            return raw.open().load()
        except BadImage as error:
            raise BadDataError(f"image {raw.path or raw.id} cannot be read: {error}") from error

    def random_crop(self, index: int, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 (C, S, S) of a random resized crop, mirrored or not, and its mask (S, S): bicubic, and nearest."""
        raw, mask = self.images.example(index), Image.fromarray(self.mask(index).astype(np.uint8))
        image = self.image(raw)
        (crop,) = self.crop.plan(*image.size, image_generator(self.options.seed, epoch, raw.key))
        size, box = (crop.size, crop.size), (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
        pixels = to_tensor(image.resize(size, Image.Resampling.BICUBIC, box))
        values = torch.from_numpy(np.array(mask.resize(size, Image.Resampling.NEAREST, box)).astype(np.int64))
        return (pixels.flip(-1), values.flip(-1)) if crop.flip else (pixels, values)

    def mask(self, index: int) -> np.ndarray:
        raw = self.masks.example(index)
        try:
            values = np.array(raw.open().load_values())
        except BadImage as error:
            raise BadDataError(f"mask {index} cannot be read: {error}") from error
        if values.ndim != 2:
            raise ValueError(f"mask {index} has {values.shape[-1]} channels: masks hold one class a pixel")
        values = values.astype(np.int64)
        ignored = values == self.options.ignore_index
        if self.options.reduce_labels:
            ignored, values = ignored | (values == 0), values - 1
        return np.where(ignored, IGNORED, values)

    def contents(self) -> torch.Tensor:
        """(n,) digests of the files of the images."""

        def content(index: int) -> int:
            raw = self.images.example(index)
            data = Path(raw.path).read_bytes() if raw.data is None else raw.data
            return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)

        return torch.tensor(list(threaded(content, range(len(self)))))


def segment(backbone: Backbone, train: Masks, test: Masks, options: SegmentOptions) -> Outcome:
    """Trains the head on `train` and counts pixels on `test`."""
    classes = options.num_classes or count_classes(train)
    best, counts, record = None, None, None
    if options.weights == "best":
        values = []

        def after_epoch(head: nn.Module) -> None:
            nonlocal best, counts
            found = test_counts(backbone, head.eval(), test, classes, options.batch_size)
            values.append(mean_iou(found.sum(0), options.averaged))
            if values[-1] >= max(values):
                best, counts = copy.deepcopy(head), found
            head.train()

        train_head(backbone, train, classes, options, after_epoch)
        record = select("test", [{"epoch": number} for number in range(1, len(values) + 1)], values)[1]
    else:
        head = train_head(backbone, train, classes, options)
        counts = test_counts(backbone, head, test, classes, options.batch_size)
    per_class = counts.sum(0)

    def statistic(weights: np.ndarray) -> float:
        return mean_iou(np.tensordot(weights, counts, 1), options.averaged)

    interval = intervals.of_statistic(statistic, len(counts), options.seed)
    metrics = {"num_classes": classes, "classes_seen": int((per_class[1] > 0).sum())}
    outcome = Outcome("mean_iou", mean_iou(per_class, options.averaged), interval, metrics)
    outcome.selection, outcome.settings = record, describe(options)
    outcome.notes = overlap_note(train.contents(), test.contents())
    return outcome


def describe(options: SegmentOptions) -> Json:
    """The settings, for the result file."""
    names = ("epochs", "learning_rate", "weight_decay", "batch_size", "crop_scale", "weights", "tested_at", "averaged")
    described = {name: getattr(options, name) for name in (*names, "scales", "flips", "reduce_labels", "seed")}
    augmentation = "horizontal flip" if options.crop_scale == (1.0, 1.0) else "random resized crop and flip"
    return described | {
        "optimizer": f"AdamW, {options.decay}", "head": "BN, 1 x 1 convolution", "augmentation": augmentation
    }  # fmt: skip


def mean_iou(counts: np.ndarray, averaged: str = "all") -> float:
    """Mean over the classes of pixels (3, C) in the intersection, the union and the truth of each.

    Args:
        averaged: over the classes that stand in truth or prediction (`all`), or in truth.
    """
    shown = counts[2 if averaged == "truth" else 1] > 0
    return float((counts[0][shown] / counts[1][shown]).mean()) if shown.any() else float("nan")


def count_classes(masks: Masks) -> int:
    """One more than the highest class of the masks."""
    highest = -1
    for mask in threaded(masks.mask, range(len(masks))):
        known = mask[mask != IGNORED]
        highest = max(highest, int(known.max()) if known.size else -1)
    if highest < 1:
        raise ValueError("the training masks hold fewer than two classes")
    return highest + 1


def train_head(backbone: Backbone, train: Masks, classes: int, options: SegmentOptions, after_epoch=None) -> nn.Module:
    """BN and 1 x 1 convolution on (B, d, h, w); the loss is taken at the resolution of the images.

    Args:
        after_epoch: called with the head after every epoch.
    """
    torch.manual_seed(seed_of("segment", options.seed))
    sample = train.transform.normalize(train.pair(0)[0][None].to(backbone.device))
    width = token_map(backbone, sample, options.layers).shape[1]
    head = nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1)).to(backbone.device)
    optimizer = torch.optim.AdamW(head.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    count = -(-len(train) // options.batch_size)
    scheduler = make_scheduler(optimizer, options.epochs * count, options.decay)
    for epoch in tracked(range(options.epochs), options.epochs, "training the head", "epochs"):
        for rows in torch.randperm(len(train)).tensor_split(count):
            pixels, targets = training_batch(train, rows.tolist(), classes, epoch)
            tokens = token_map(backbone, train.transform.normalize(pixels.to(backbone.device)), options.layers)
            check_finite(tokens, [train.name(row) for row in rows.tolist()], "training image")
            logits = functional.interpolate(head(tokens), size=targets.shape[1:], mode="bilinear")
            loss = functional.cross_entropy(logits, targets.to(backbone.device), ignore_index=IGNORED, reduction="sum")
            known = (targets != IGNORED).sum().clamp(min=1)
            optimizer.zero_grad()
            (loss / known.to(loss.device)).backward()
            optimizer.step()
            scheduler.step()
        if after_epoch is not None:
            after_epoch(head)
    return head.eval()


def make_scheduler(optimizer: torch.optim.Optimizer, updates: int, decay: str) -> torch.optim.lr_scheduler.LRScheduler:
    """To 0 with each update, as a cosine or with a power of what is left."""
    if decay == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / updates) ** _POWER)


@torch.no_grad()
def token_map(backbone: Backbone, pixels: torch.Tensor, layers: int) -> torch.Tensor:
    """Patch tokens (B, layers * d, h, w) of the last blocks.

    Raises:
        RuntimeError: the network is in training mode.
    """
    backbone.check_evaluating()
    patches = torch.cat([tokens.patches for tokens in backbone.tokens(pixels, layers)], 2)
    return patches.transpose(1, 2).unflatten(2, backbone.grid(pixels, patches.shape[1])).contiguous()


def training_batch(train: Masks, rows: list[int], classes: int, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (B, C, S, S) and masks (B, S, S), half of the images mirrored."""
    if train.options.crop_scale != (1.0, 1.0):
        images, masks = zip(*threaded(lambda row: train.random_crop(row, epoch), rows), strict=True)
        masks = [torch.where(mask >= classes, IGNORED, mask) for mask in masks]
        return torch.stack(images), torch.stack(masks)
    images, masks = [], []
    for pixels, mask in threaded(train.pair, rows):
        square = to_size(mask, train.transform.size)
        square[square >= classes] = IGNORED
        flip = bool(torch.rand(()) < 0.5)
        images.append(pixels.flip(-1) if flip else pixels)
        masks.append(square.flip(-1) if flip else square)
    return torch.stack(images), torch.stack(masks)


def to_size(mask: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """The mask (H, W) at another resolution, nearest values."""
    return functional.interpolate(torch.from_numpy(mask)[None, None].float(), size=size)[0, 0].long()


@torch.no_grad()
def test_counts(backbone: Backbone, head: nn.Module, test: Masks, classes: int, batch_size: int) -> np.ndarray:
    """(n, 3, C) pixels in the intersection, the union and the truth of each class, at the resolution of each mask or
    of the crop."""
    counts, crop = [], test.options.tested_at == "crop"
    numbers = iter(range(len(test)))
    for images, masks in batches(threaded(test.pair, range(len(test)), ahead=64), batch_size):
        pixels = test.transform.normalize(torch.stack(images).to(backbone.device))
        scores = test_scores(backbone, head, pixels, test.options)
        check_finite(scores, [test.name(next(numbers)) for _ in masks], "test image")
        for found, mask in zip(scores, masks, strict=True):
            truth = to_size(mask, test.transform.size).numpy() if crop else mask
            truth = np.where(truth >= classes, IGNORED, truth)
            full = functional.interpolate(found[None], size=truth.shape, mode="bilinear")[0]
            pair = class_counts(full.argmax(0).cpu().numpy(), truth, classes, IGNORED)
            counts.append(np.vstack([pair, np.bincount(truth[truth != IGNORED], minlength=classes)]))
    return np.stack(counts)


def test_scores(backbone: Backbone, head: nn.Module, pixels: torch.Tensor, options: SegmentOptions) -> torch.Tensor:
    """Logits (B, C, h, w); of several scales and mirrored images the mean probabilities (B, C, S, S)."""
    if options.scales == (1.0,) and not options.flips:
        return head(token_map(backbone, pixels, options.layers))
    found, patch, size = [], backbone.patch_size or 1, pixels.shape[-2:]
    for scale in options.scales:
        sides = [max(patch, round(side * scale / patch) * patch) for side in size]
        scaled = functional.interpolate(pixels, size=sides, mode="bicubic", antialias=True)
        for flip in (False, True)[: 1 + options.flips]:
            logits = head(token_map(backbone, scaled.flip(-1) if flip else scaled, options.layers))
            logits = functional.interpolate(logits.flip(-1) if flip else logits, size=size, mode="bilinear")
            found.append(logits.softmax(1))
    return torch.stack(found).mean(0)
