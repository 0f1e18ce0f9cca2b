# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A look at what the model will see: originals and their augmented views on one sheet, and what the source is."""

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..run_folder import atomic_file
from ..seeding import image_generator, torch_generator
from .color import DeviceAugment
from .crops import ViewMaker
from .decode import BadImage, open_image
from .sources import Source


_GAP = 4
_RATE_SECONDS = 3.0


def preview(
    source: Source,
    multi_crop: ViewMaker,
    augment: DeviceAugment,
    path: str | Path,
    count: int = 8,
    seed: int = 0,
) -> dict:
    """Writes a contact sheet and measures a worker.

    Args:
        source: from `open_stream`.
        multi_crop: makes the views.
        augment: colors uint8 views; a reference's are colored already.
        path: PNG to write: one row per image, the original first, then its views, global first.
        count: number of images.
        seed: of crops and colors.

    Returns:
        `source.description()`, `sizes` (width and height of the images seen: smallest, median, largest),
        `images_per_second` of one worker, `views` and `path`.

    Raises:
        ValueError: no image can be read.
    """
    colors = torch_generator("preview", seed)
    rows, sizes, started, spent = [], [], time.perf_counter(), 0.0
    for raw in source.raw_examples():
        try:
            before = time.perf_counter()
            opened = open_image(raw.data, raw.path)
            views = multi_crop.from_opened(opened, image_generator(seed, 0, raw.key))
            spent += time.perf_counter() - before
        except BadImage:
            continue
        sizes.append(opened.size)
        if len(rows) < count:
            original = open_image(raw.data, raw.path).load()
            rows.append([original, *(_colored(view, augment, colors) for view in views)])
        elif time.perf_counter() - started > _RATE_SECONDS:
            break
    if not rows:
        raise ValueError(f"preview: no image of {source.name} can be read.")
    with atomic_file(Path(path)) as part:
        _sheet(rows, multi_crop.resolutions[0][1]).save(part)
    ordered = sorted(sizes)
    return {
        **source.description(),
        "sizes": [ordered[0], ordered[len(ordered) // 2], ordered[-1]],
        "images_per_second": round(len(sizes) / spent, 1),
        "views": [f"{views} x {side}" for views, side in multi_crop.resolutions],
        "path": str(path),
    }


def _colored(view: torch.Tensor, augment: DeviceAugment, generator: torch.Generator) -> Image.Image:
    """An augmented view with the normalization taken back."""
    pixels = augment(view[None].contiguous(), generator)[0] if view.dtype == torch.uint8 else view
    pixels = pixels.permute(1, 2, 0).numpy() * np.array(augment.options.std) + np.array(augment.options.mean)
    return Image.fromarray(np.clip(np.round(pixels * 255), 0, 255).astype(np.uint8))


def _sheet(rows: list[list[Image.Image]], side: int) -> Image.Image:
    """One row an image; the original is fitted into a square of `side`, views keep their size."""
    for row in rows:
        row[0] = row[0].copy()
        row[0].thumbnail((side, side))
    width = max(side + sum(_GAP + view.width for view in row[1:]) for row in rows)
    sheet = Image.new("RGB", (width, len(rows) * (side + _GAP) - _GAP), "white")
    for number, (original, *views) in enumerate(rows):
        top, left = number * (side + _GAP), side + _GAP
        sheet.paste(original, (0, top))
        for view in views:
            sheet.paste(view, (left, top))
            left += view.width + _GAP
    return sheet
