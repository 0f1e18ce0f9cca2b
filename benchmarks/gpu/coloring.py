# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The color augmentation of a batch: 4 views of 224 px and 6 of 96 px of B images, uint8 to normalized float32."""

import argparse
import itertools
import json

import torch

from ..measuring import add_measure
from .timing import DEVICE, card, launches, measured


RESOLUTIONS = [(4, 224), (6, 96)]
SMALL = [(2, 16), (2, 8)]


def measure(batches: list[int], resolutions: list[tuple[int, int]]) -> dict:
    """Milliseconds and launches for each B, the copy to the device left out."""
    from visreg_training.data import DeviceAugment
    from visreg_training.loop.views import StepAugment

    def row(batch: int) -> dict:
        augment, step = StepAugment(DeviceAugment(), DEVICE, seed=1, rank=0), itertools.count()
        shapes = [(views, batch, 3, side, side) for views, side in resolutions]
        views = [torch.randint(0, 256, shape, dtype=torch.uint8, device=DEVICE) for shape in shapes]
        timed = measured(lambda: augment(views, next(step)), warm=3, repeats=15)
        return {"B": batch, **timed, "launches": launches(lambda: augment(views, next(step)))}

    return {"card": card(), "rows": [row(batch) for batch in batches]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_measure(parser)
    print(json.dumps(measure(*parser.parse_args().measure)))
