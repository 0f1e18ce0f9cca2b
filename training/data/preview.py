# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A look at what the model will see: originals and their augmented views on one sheet, and what the source is."""

import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..run_folder import atomic_file
from ..seeding import image_generator, torch_generator
from .color import DeviceAugment
from .crops import ViewMaker
from .decode import MAX_PIXELS, BadImage, RawExample
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
        count: number of images, a sample across the classes where there are any.
        seed: of the sample, of crops and colors.

    Returns:
        `source.description()`, `classes`, `looked_at` (images that were opened), `sizes` (width and height of these:
        smallest, median, largest by area), `bad` (what cannot be read of them: path or id, and why), `shown` (ids on
        the sheet), `images_per_second` of one worker, `views`, `drawn_at` (pixels of a view's side on
        the sheet where whole views would make it too large to be looked at, else None) and `path`.

    Raises:
        ValueError: no image can be read.
    """
    look = _Look(multi_crop, seed, count)
    started = time.perf_counter()
    for raw in source.raw_examples(seed):
        look.at(raw)
        if look.enough and time.perf_counter() - started > _RATE_SECONDS:
            break
    if not look.sizes:
        raise ValueError(f"preview: no image of {source.name} can be read.")
    colors = torch_generator("preview", seed)
    shown, sides = sum(views for views, _side in multi_crop.resolutions) + 1, [r[1] for r in multi_crop.resolutions]
    side = min(max(sides), math.isqrt(MAX_PIXELS // (shown * len(look.shown))))
    rows = [_row(raw, multi_crop, augment, colors, seed, side) for raw in look.shown]
    with atomic_file(Path(path)) as part:
        _sheet(rows, side).save(part)
    ordered = sorted(look.sizes, key=lambda size: size[0] * size[1])
    return {
        **source.description(),
        "classes": source.label_names,
        "looked_at": len(look.sizes) + len(look.bad),
        "sizes": [ordered[0], ordered[len(ordered) // 2], ordered[-1]],
        "bad": look.bad,
        "shown": [raw.id for raw in look.shown],
        "images_per_second": round(len(look.sizes) / look.seconds, 1),
        "views": [f"{views} x {side}" for views, side in multi_crop.resolutions],
        "drawn_at": side if side < max(sides) else None,
        "path": str(path),
    }


def facts(metadata: dict) -> list[tuple[str, str]]:
    """What `preview` returned, as (label, text) for people."""
    names, bad, drawn_at = metadata["classes"], metadata["bad"], metadata["drawn_at"]
    sizes = [f"{width} x {height}" for width, height in metadata["sizes"]]
    columns = f"images in the column {metadata['image_column']}"
    columns += f", labels in {metadata['label_column']}" if metadata["label_column"] else ", no labels"
    of_all = f"of {metadata['looked_at']} looked at"
    unreadable = f"{len(bad)} {of_all}" + (f": {'; '.join(bad[:3])}" + ("; ..." if bad[3:] else "") if bad else "")
    revision = f", revision {metadata['revision']}" if metadata["revision"] else ""
    parts = f", in {metadata['num_shards']} shards" if metadata["streaming"] else ""
    count = "an unknown number" if metadata["num_examples"] is None else f"{metadata['num_examples']:,}"
    lines = [
        ("data set", f"{metadata['dataset']}, split {metadata['split']}{revision}; {columns}"),
        ("images", count + parts),
        ("classes", f"{len(names)}: {', '.join(names[:10])}{', ...' if names[10:] else ''}" if names else "none"),
        ("pixels", f"{sizes[0]} the smallest, {sizes[1]} the median, {sizes[2]} the largest {of_all}"),
        ("unreadable", unreadable),
        ("views", f"{' and '.join(metadata['views'])} px of each image"),
        ("rate", f"{metadata['images_per_second']:g} images a second, by one worker"),
        ("sheet", metadata["path"] + (f", views drawn {drawn_at} px at most" if drawn_at else "")),
    ]
    lines += [("left out", note) for note in metadata["left_out"]]
    lost = metadata["unreadable_files"]
    return lines + ([("files lost", f"{len(lost)} that cannot be read: {', '.join(lost[:3])}")] if lost else [])


class _Look:
    """Goes through images: crops each, and keeps some to be shown, of classes that were not seen yet if it can."""

    def __init__(self, multi_crop: ViewMaker, seed: int, count: int):
        self.multi_crop, self.seed, self.count = multi_crop, seed, count
        self.sizes: list[tuple[int, int]] = []
        self.bad: list[str] = []
        self.seconds = 0.0
        self.first: list[RawExample] = []  # of its class, or of no class
        self.spare: list[RawExample] = []

    @property
    def shown(self) -> list[RawExample]:
        return [*self.first, *self.spare][: self.count]

    @property
    def enough(self) -> bool:
        return len(self.shown) == self.count

    def at(self, raw: RawExample) -> None:
        before = time.perf_counter()
        try:
            opened = raw.open()
            self.multi_crop.from_opened(opened, image_generator(self.seed, 0, raw.key))
        except BadImage as error:
            self.bad.append(f"{raw.path or raw.id} ({error.kind})")
            return
        self.seconds += time.perf_counter() - before
        self.sizes.append(opened.size)
        new = raw.label is None or raw.label not in [other.label for other in self.first]
        kept = self.first if new else self.spare
        if len(kept) < self.count:
            kept.append(raw)


def _row(
    raw: RawExample, multi_crop: ViewMaker, augment: DeviceAugment, colors: torch.Generator, seed: int, side: int
) -> list[Image.Image]:
    """An image and its views, of `side` pixels at most."""
    views = multi_crop.from_opened(raw.open(), image_generator(seed, 0, raw.key))
    row = [raw.open().load().copy()]
    row[0].thumbnail((side, side))
    for view in views:
        row.append(_colored(view, augment, colors))
        row[-1].thumbnail((side, side))
    return row


def _colored(view: torch.Tensor, augment: DeviceAugment, generator: torch.Generator) -> Image.Image:
    """An augmented view with the normalization taken back."""
    pixels = augment(view[None].contiguous(), generator)[0] if view.dtype == torch.uint8 else view
    pixels = pixels.permute(1, 2, 0).numpy() * np.array(augment.options.std) + np.array(augment.options.mean)
    return Image.fromarray(np.clip(np.round(pixels * 255), 0, 255).astype(np.uint8))


def _sheet(rows: list[list[Image.Image]], side: int) -> Image.Image:
    """One row an image, of images of at most `side` pixels."""
    width = max(side + sum(_GAP + view.width for view in row[1:]) for row in rows)
    sheet = Image.new("RGB", (width, len(rows) * (side + _GAP) - _GAP), "white")
    for number, (original, *views) in enumerate(rows):
        top, left = number * (side + _GAP), side + _GAP
        sheet.paste(original, (0, top))
        for view in views:
            sheet.paste(view, (left, top))
            left += view.width + _GAP
    return sheet
