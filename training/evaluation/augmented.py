# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The published linear protocol: heads trained on random resized crops and flips, drawn anew in every epoch.

B images of a batch, d features, H heads. A batch is shared out over processes, its features are gathered,
and every process makes the same update: the result does not depend on their number.
"""

from typing import Any

import torch
from accelerate.utils import gather

from ..backbones import Backbone
from ..data import MultiCrop
from ..data.decode import open_image
from ..seeding import image_generator
from .features import FeatureSettings
from .heads import BatchedHeads, schedule
from .linear import HeadOptions, choose_head
from .processes import processes
from .task import Outcome, Task, check_selection, hold_out, judge, subset
from .transform import EvaluationTransform, threaded


CROP_SCALE = (0.08, 1.0)  # torchvision's random resized crop


def linear_on_images(
    model: Backbone,
    source: Any,
    task: Task,
    transform: EvaluationTransform,
    settings: FeatureSettings,
    options: HeadOptions | None = None,
    selection: str = "validation",
) -> Outcome:
    """Linear classification with the paper's augmentation.

    The choice is made as in `linear`, on centre crops; the chosen setting is not trained anew, which would double the
    time.

    Args:
        source: training images, map-style.
        task: features of the centre crops of the same images, and of the others.

    Raises:
        ValueError: `source` is a stream, or the model does not take squares.
    """
    options = options or HeadOptions()
    options.check()
    check_selection(selection)
    if not source.is_map_style:
        raise ValueError("augmented images are read at random: use --streaming false, or --images cached")
    if transform.size[0] != transform.size[1]:
        raise ValueError(f"augmented crops are square, the model takes {transform.size}: give --image_size")
    places = torch.arange(len(task.train.labels))
    if selection == "test":
        fit, choose = places, task.test
    elif task.validation is not None:
        fit, choose = places, task.validation
    else:
        fit, held = hold_out(task.train.labels, options.seed)
        choose = subset(task.train, held)
    heads = options.heads(task, task.train.features.shape[1], model.device)
    train_on_images(heads, AugmentedImages(model, source, task, transform, settings, options.seed), fit, options)
    best, record = choose_head(heads, choose, selection)
    outcome = judge(heads.head_scores(task.test.features, best), task.test.labels, options.seed)
    outcome.selection = record
    outcome.settings = options.description() | {"solver": "sgd", "images": "random resized crop and flip"}
    return outcome


class AugmentedImages:
    """Features of random crops: `batch(places, epoch)` gives those of this process's share of a batch."""

    def __init__(
        self, model, source, task: Task, transform: EvaluationTransform, settings: FeatureSettings, seed: int
    ):
        self.model, self.source, self.transform = model, source, transform
        self.settings, self.seed, self.task = settings, seed, task
        self.crop = MultiCrop(num_global=1, num_local=0, global_size=transform.size[0], global_scale=CROP_SCALE)
        self.width = task.train.features.shape[1]
        # Centre crops were taken of the readable images only: their ids say which number each has in the source.
        self.numbers = numbers_of(source, task.train.ids)

    @torch.no_grad()
    def batch(self, places: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, d) and labels of a whole batch, on every process."""
        state = processes()
        share = -(-len(places) // state.num_processes)
        mine = places[state.process_index :: state.num_processes].tolist()
        crops = list(threaded(lambda place: self.load(place, epoch), mine))
        features = torch.zeros(share, self.width, device=self.model.device)
        if crops:
            pixels = self.transform.normalise(torch.stack(crops).to(self.model.device))
            with self.settings.autocast(self.model.device):
                embedded = self.model.embed(pixels, self.settings.layers, self.settings.pooling)
            features[: len(crops)] = embedded.float()
        if state.num_processes > 1:  # process r holds the places r, r + N, ...
            features = gather(features).unflatten(0, (state.num_processes, share)).transpose(0, 1).flatten(0, 1)
        return features[: len(places)], self.task.train.labels[places].to(self.model.device)

    def load(self, place: int, epoch: int) -> torch.Tensor:
        raw = self.source.example(self.numbers[place])
        (view,) = self.crop.from_opened(open_image(raw.data, raw.path), image_generator(self.seed, epoch, raw.key))
        return view.contiguous()


def train_on_images(heads: BatchedHeads, images: AugmentedImages, rows: torch.Tensor, options: HeadOptions) -> None:
    """SGD on the given images; batches and their order as in `train_heads`."""
    generator = torch.Generator().manual_seed(options.seed)
    count = -(-len(rows) // options.batch_size)
    for epoch in range(options.epochs):
        order = rows[torch.randperm(len(rows), generator=generator)]
        for number, places in enumerate(order.tensor_split(count)):
            features, labels = images.batch(places, epoch)
            factor = schedule(epoch * count + number, options.epochs * count, options.batch_size)
            heads.step(features, labels, factor)


def numbers_of(source: Any, ids: list[str]) -> list[int]:
    """Number in the source of each id.

    Raises:
        ValueError: one is not there.
    """
    known = {str(row): number for number, row in enumerate(source.rows.tolist())}
    try:
        return [known[name] for name in ids]
    except KeyError as error:
        raise ValueError(f"{source.name}: there is no image {error} in the split {source.split}") from None
