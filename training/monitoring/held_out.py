# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the online probes on images that the run does not learn from: those of its `eval_split`.

n held-out images, d width of the backbone. Measuring draws nothing and leaves no trace in the run.
"""

from collections.abc import Iterator

import torch

from ..backbones import Backbone, wrap_backbone
from ..evaluation.preprocessing import transform_for
from ..evaluation.splits import label_map
from ..loop.checkpoint import full_model
from ..loop.run import Run
from .probes import OnlineProbes


class HeldOut:
    """The main process measures while the others wait.

    The images, a sample of the split prepared as every evaluation prepares them, are read once and held as uint8.

    Args:
        run: with a `held_out` source.
        batch_size: images a forward pass.

    Raises:
        ValueError: the held-out images have classes that those of the run do not have.
    """

    def __init__(self, run: Run, batch_size: int = 256):
        self.run, self.batch_size = run, batch_size
        self.transform = transform_for(wrap_backbone(run.model))
        self.numbers = label_map(run.source.label_names, run.held_out.label_names)
        self.pixels: torch.Tensor | None = None
        self.labels: torch.Tensor | None = None

    def measure(self, probes: OnlineProbes) -> dict[str, float]:
        """All ranks call this; the main process gets the accuracies (shares), the others nothing."""
        accelerator = self.run.accelerator
        model = full_model(self.run.model, accelerator)
        if not accelerator.is_main_process:
            return {}
        if self.labels is None:
            self.read()
        if not len(self.labels):
            return {}
        backbone = wrap_backbone(model).to(accelerator.device)
        with backbone.evaluating(), torch.no_grad():  # no drop path, so that nothing is drawn
            right = torch.stack([self.right(backbone, probes, rows) for rows in self.rows()]).sum(0)
        linear, nearest = (right / len(self.labels)).tolist()
        return {"held_out_linear": linear, "held_out_knn": nearest}

    def read(self) -> None:
        """Decode the sample; images without a label of their own are left out."""
        options = self.run.options
        pixels, labels = [], []
        for image, label, _id in self.run.held_out.examples(limit=options.probe_images, seed=options.seed):
            if isinstance(label, int) and label >= 0:
                pixels.append(self.transform(image))
                labels.append(label if self.numbers is None else self.numbers[label])
        self.pixels = torch.stack(pixels) if pixels else None
        self.labels = torch.tensor(labels)

    def rows(self) -> Iterator[slice]:
        """Batches of the sample."""
        return (slice(start, start + self.batch_size) for start in range(0, len(self.labels), self.batch_size))

    def right(self, backbone: Backbone, probes: OnlineProbes, rows: slice) -> torch.Tensor:
        """How many of some images the linear probe and the kNN classify right: (2,)."""
        device = self.run.accelerator.device
        pixels = self.transform.normalize(self.pixels[rows].to(device, non_blocking=True))
        # Another batch and size than the steps': not worth compiling for.
        with self.run.accelerator.autocast(), torch.compiler.set_stance("force_eager"):
            features, blocks = backbone.encode(pixels, probed=True)
        answers = probes.answer(blocks, features)
        labels = self.labels[rows].to(device, non_blocking=True)
        return torch.stack([(answer == labels).sum() for answer in answers])


def build_held_out(run: Run) -> HeldOut | None:
    """What the probes are measured on, or None: no probes, no eval_split, or one with classes of its own."""
    if not run.probed or run.held_out is None:
        return None
    known = set(run.held_out.label_names) <= set(run.source.label_names)
    return HeldOut(run) if known else None
