# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a protocol is given: a model, data, and how features are taken of them."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ..backbones import Backbone
from ..distributed import process_state, raise_on_all_ranks
from ..run_folder import Json
from .cache import FeatureCache
from .options import FeatureOptions
from .outcome import Outcome
from .preprocessing import transform_for
from .splits import Sources, Task, load_task


@dataclass
class Inputs:
    """The model and the data of one evaluation.

    Attributes:
        backbone: on the device of this process.
        cache: of features; None for the user's.
        batch_size: images that are embedded at once.
        folder: where a protocol leaves what it makes; None for nowhere.
        feature_seconds: time that `task` took; None where it was not asked for.
        images: how many labeled ones each split of `task` has.
        notes: of `task`, without which a result on it would mislead.
    """

    backbone: Backbone
    sources: Sources
    features: FeatureOptions = field(default_factory=FeatureOptions)
    cache: FeatureCache | None = None
    batch_size: int = 256
    folder: Path | None = None
    feature_seconds: float | None = None
    images: Json = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return process_state().device

    def task(self) -> Task:
        """Features of all splits; every process calls this."""
        started = time.perf_counter()
        task = load_task(self.backbone, self.sources, self.features, self.cache, self.batch_size)
        self.images = {"train_images": len(task.train.labels), "test_images": len(task.test.labels)}
        self.notes = task.notes()
        self.feature_seconds = time.perf_counter() - started
        return task

    def feature_record(self) -> Json:
        """What `task` takes of the model, for the result file."""
        transform = transform_for(self.backbone, self.features.image_size)
        return asdict(self.features) | {"transform": transform.description()}


def on_main_process(measure: Callable[[], Outcome]) -> Outcome | None:
    """What the main process measures, alone; where it fails, all fail."""
    with raise_on_all_ranks():
        return measure() if process_state().is_main_process else None
