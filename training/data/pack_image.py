# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One image made smaller for a pack: what its worker processes do, without torch.

An image that is small enough already keeps its bytes, where its format is one of the web's; any other is decoded
upright as RGB, reduced (never enlarged) and encoded anew.
"""

import io
import multiprocessing
import os
import signal
import threading
from typing import NamedTuple

from PIL import Image

from .decode import BadImage, OpenedImage, RawExample
from .options import PackOptions


COPIED_FORMATS = ("JPEG", "PNG", "WEBP")
# Pixels of a side that the formats can hold. A strip that is longer is reduced further.
_LONGEST = {"JPEG": 65_500, "WEBP": 16_383}
# A JPEG is decoded smaller by its DCT as long as it is still reduced by this factor afterwards.
_MARGIN = 2


class PackedImage(NamedTuple):
    """What became of an image.

    Attributes:
        data: an image file, or None for an image that cannot be read.
        copied: whether these are the bytes that there were.
        before: bytes that there were; 0 where they could not be read.
        kind, detail: of the trouble, those of `BadImage`; empty without.
    """

    data: bytes | None
    copied: bool = False
    before: int = 0
    kind: str = ""
    detail: str = ""


def pack_images(raws: list[RawExample], options: PackOptions) -> list[PackedImage]:
    """`pack_image` of each."""
    return [pack_image(raw, options) for raw in raws]


def pack_image(raw: RawExample, options: PackOptions) -> PackedImage:
    """An image file with a shorter side of at most `options.size` pixels."""
    try:
        opened = raw.open()
        before = len(opened.content)
        if options.copy_fitting and _fits(opened, options.size):
            opened.load_values()  # what is cut off or damaged shows only here
            return PackedImage(opened.content, True, before)
        return PackedImage(_encoded(_reduced(opened, options), options), False, before)
    except BadImage as error:
        return PackedImage(None, kind=error.kind, detail=error.detail)


def _fits(opened: OpenedImage, size: int) -> bool:
    """Whether the bytes may stay: small enough, one picture, and of a format that every reader knows."""
    one = getattr(opened.image, "n_frames", 1) == 1
    return one and opened.image.format in COPIED_FORMATS and min(opened.size) <= size


def _reduced(opened: OpenedImage, options: PackOptions) -> Image.Image:
    """Upright RGB whose shorter side is `options.size`, or what it was if it was shorter."""
    width, height = opened.size
    longest = _LONGEST[options.image_format.upper()]
    scale = min(1.0, options.size / min(width, height), longest / max(width, height))
    image = opened.load(next((factor for factor in (8, 4, 2) if scale * factor * _MARGIN <= 1), 1))
    if scale == 1:
        return image
    target = max(1, round(width * scale)), max(1, round(height * scale))
    return image.resize(target, Image.Resampling.BICUBIC)


def _encoded(image: Image.Image, options: PackOptions) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, options.image_format.upper(), quality=options.quality)
    return buffer.getvalue()


def begin_worker() -> None:
    """A worker leaves Ctrl-C to its parent, and ends when that is gone, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
