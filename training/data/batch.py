# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A batch of views as a worker makes it.

Legend: V views, B images of a rank's batch, C = 3; one tensor per resolution, (V_r, B, C, h, w), global first.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.utils.data import get_worker_info

from ..compat import empty_shared
from ..seeding import image_generator
from .crops import ViewMaker
from .decode import BadImage, RawExample
from .skips import skip_record


class WorkerBatch(NamedTuple):
    """A batch on its way from a worker to the loader.

    Attributes:
        views: one tensor per resolution, (V_r, B, C, h, w).
        labels: (B,) class numbers, -1 without one.
        ids: B names.
        state: the reader's position after this batch (streams), else None.
        seen: images looked at for this batch.
        skipped: records of those that cannot be read.
    """

    views: list[torch.Tensor]
    labels: torch.Tensor
    ids: list[str]
    state: dict | None
    seen: int
    skipped: list[dict]


@dataclass
class BatchBuilder:
    """Collects the views of B images in one tensor per resolution; a worker puts it in shared memory, so that the
    loader takes it without a copy.
    """

    multi_crop: ViewMaker
    batch_size: int
    seed: int
    views: list[torch.Tensor] = field(init=False)
    labels: list[int] = field(default_factory=list, init=False)
    ids: list[str] = field(default_factory=list, init=False)
    skipped: list[dict] = field(default_factory=list, init=False)
    seen: int = field(default=0, init=False)

    def __post_init__(self):
        empty = torch.empty if get_worker_info() is None else empty_shared
        shapes = [(views, self.batch_size, 3, side, side) for views, side in self.multi_crop.resolutions]
        self.views = [empty(shape, dtype=self.multi_crop.dtype) for shape in shapes]

    def add(self, raw: RawExample, epoch: int) -> bool:
        """Decodes and crops an image; False (and a record) if it cannot be read."""
        self.seen += 1
        try:
            opened = raw.open()
            crops = self.multi_crop.from_opened(opened, image_generator(self.seed, epoch, raw.key))
        except BadImage as error:
            self.skipped.append(skip_record(error.kind, raw.id, raw.path, error.detail))
            return False
        column, first = len(self.ids), 0
        for tensor in self.views:
            for view, crop in enumerate(crops[first : first + len(tensor)]):
                tensor[view, column].copy_(crop)
            first += len(tensor)
        self.labels.append(raw.label if isinstance(raw.label, int) else -1)
        self.ids.append(raw.id)
        return True

    @property
    def full(self) -> bool:
        """Whether B images were added."""
        return len(self.ids) == self.batch_size

    def finish(self, state: dict | None) -> WorkerBatch:
        """The batch, with the reader's `state` after it."""
        return WorkerBatch(self.views, torch.tensor(self.labels), self.ids, state, self.seen, self.skipped)
