# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The published linear protocol: heads trained on random resized crops and flips, drawn anew in every epoch.

B images of a batch, d features. A batch is shared out over processes, its features are gathered, and every process
makes the same update: the result does not depend on their number.
"""

import torch
from accelerate.utils import gather

from ..backbones import Backbone
from ..data import MultiCrop, Source
from ..distributed import process_state
from ..seeding import image_generator
from .features import check_finite, embed_batch, image_numbers
from .heads import BatchedHeads, training_batches
from .options import FeatureOptions
from .preprocessing import EvaluationTransform, threaded
from .splits import Task


CROP_SCALE = (0.08, 1.0)  # torchvision's random resized crop


class AugmentedImages:
    """Features of random crops: `batch(rows, epoch)` gives those of some images of the task's training split.

    Raises:
        ValueError: `source` does not hold an image of the task.
    """

    def __init__(
        self,
        backbone: Backbone,
        source: Source,
        task: Task,
        transform: EvaluationTransform,
        options: FeatureOptions,
        seed: int,
    ):
        self.backbone, self.source, self.transform = backbone, source, transform
        self.options, self.seed, self.task = options, seed, task
        self.crop = MultiCrop(num_global=1, num_local=0, global_size=transform.size[0], global_scale=CROP_SCALE)
        self.width = task.train.features.shape[1]
        # Center crops were taken of the readable images only: their ids say which number each has in the source.
        known = image_numbers(source)
        if missing := next((name for name in task.train.ids if name not in known), None):
            raise ValueError(f"{source.name}: there is no image {missing!r} in the split {source.split}")
        self.numbers = [known[name] for name in task.train.ids]

    @torch.no_grad()
    def batch(self, rows: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, d) and labels of a whole batch, on every process; each embeds its share."""
        state = process_state()
        share = -(-len(rows) // state.num_processes)
        own = rows[state.process_index :: state.num_processes].tolist()
        crops = list(threaded(lambda row: self.load(row, epoch), own))
        features = torch.zeros(share, self.width, device=self.backbone.device)
        if crops:
            features[: len(crops)] = embed_batch(self.backbone, self.transform, crops, self.options)
        if state.num_processes > 1:  # process r holds the rows r, r + N, ...
            features = gather(features).unflatten(0, (state.num_processes, share)).transpose(0, 1).flatten(0, 1)
        features = features[: len(rows)]
        check_finite(features, [self.task.train.ids[row] for row in rows.tolist()], "a crop of training image")
        return features, self.task.train.labels[rows].to(self.backbone.device)

    def load(self, row: int, epoch: int) -> torch.Tensor:
        raw = self.source.example(self.numbers[row])
        (view,) = self.crop.from_opened(raw.open(), image_generator(self.seed, epoch, raw.key))
        return view.contiguous()


def train_on_images(
    heads: BatchedHeads,
    images: AugmentedImages,
    rows: torch.Tensor,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    drop_last: bool = False,
    each_epoch: bool = False,
) -> None:
    """SGD on the given images; batches and their order as in `train_heads`."""
    for epoch, batch, factor in training_batches(rows, epochs, batch_size, seed, drop_last, each_epoch):
        heads.step(*images.batch(batch, epoch), factor)
