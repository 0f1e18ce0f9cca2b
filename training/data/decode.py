# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Undecoded bytes -> upright RGB image, or `BadImage` with the kind of trouble.

What can be read is read: CMYK, palettes, alpha (composited on white), 16-bit (scaled, not clipped), EXIF rotation,
animations (first frame). What cannot raises `BadImage`; the loader counts it and goes on.

    opened = open_image(data)           # header only: format, size
    image = opened.load(reduction=2)    # pixels; a JPEG decoded at 1/2 of its size
"""

import os
import stat
import struct
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, UnidentifiedImageError

from ..bounded import without_waiting
from ..errors import BadDataError
from ..lazy import import_alone
from .formats import register_optional_formats


if TYPE_CHECKING:
    from modeling_visreg import decoding_visreg as decoding
else:
    decoding = import_alone("modeling_visreg.decoding_visreg")

FORMATS = (*decoding.FORMATS, *register_optional_formats())
MAX_PIXELS, to_rgb = decoding.MAX_PIXELS, decoding.to_rgb

# Of a file. The largest that has so few pixels, of four channels of 32 bits without compression, has 960 MB.
MAX_BYTES = 1 << 30


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes (".jpg", lower case) of the files that `open_image` can read: those that Pillow, as it was built here,
    registers for `FORMATS`. Every scan of a folder for images goes by it.
    """
    return frozenset(suffix for suffix, form in Image.registered_extensions().items() if form in FORMATS)


def has_image_suffix(name: str | os.PathLike) -> bool:
    """Whether a file's name is that of an image, by its suffix in any case."""
    return os.path.splitext(os.fspath(name))[1].lower() in image_suffixes()


def downloaded_path(path: str | None) -> str | None:
    """The path of an image of a data set on the Hub, if it lies where such are downloaded to, else None.

    A table of somebody's may name any file of this machine in the place of an image.
    """
    if not path:
        return None
    from datasets import config  # here: the rest of this file does without
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(path).resolve()
    roots = (HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)
    return path if any(place.is_relative_to(Path(root).expanduser().resolve()) for root in roots) else None


def path_in_table(path: str | None, folder: str) -> str | None:
    """Where an image lies that a table of a local data set names: below the data set's folder, links resolved.

    A table of somebody's may name any file of this machine in the place of an image. A path that is not absolute
    starts from the folder.

    Raises:
        BadDataError: it leads elsewhere.
    """
    if not path:
        return path
    place, root = os.path.join(folder, path), _real_folder(folder)
    if os.path.realpath(place).startswith(root):
        return place
    raise BadDataError(
        f"dataset: a table in {folder} names the image {path[:200]}, which is not below that folder: move or copy the "
        "files there, or let `datasets` take them into the table: "
        'load_dataset(...).cast_column("image", Image()).save_to_disk(FOLDER).'
    )


@cache
def _real_folder(folder: str) -> str:
    return os.path.join(os.path.realpath(folder), "")


class BadImage(Exception):
    """An image that cannot be used.

    Attributes:
        kind: `missing`, `empty`, `not_image`, `truncated`, `too_large` or `corrupt`.
        detail: what the decoder said, one line.
    """

    def __init__(self, kind: str, detail: str = ""):
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class RawExample(NamedTuple):
    """An image that has not been decoded.

    Attributes:
        data: the image file's content, or None if `path` is to be read.
        path: file name; a path only where data is None.
        label: class number, a list of them where the column holds several, None without labels.
        id: the image's name in records: its number in a map-style source, `shard-row group-row` in a stream.
        key: the same as numbers, the image's part of the augmentation's seed.
        max_pixels: of `open_image`. It travels with the image, so that whichever process decodes it knows.
    """

    data: bytes | None
    path: str | None
    label: int | list[int] | None
    id: str
    key: tuple[int, ...]
    max_pixels: int | None = None

    def open(self) -> "OpenedImage":
        """Its header, as `open_image` reads it.

        Raises:
            BadImage: with the kind of trouble.
        """
        return open_image(self.data, self.path, self.max_pixels)


@dataclass
class OpenedImage:
    """An image of which only the header was read.

    Attributes:
        image: the lazy PIL image.
        size: (width, height) in pixels once upright, at full resolution.
        orientation: EXIF orientation, 1 (upright) to 8.
        content: of the image file.
        least: a JPEG of too many pixels is decoded at 1/least of its size.
    """

    image: Image.Image
    size: tuple[int, int]
    orientation: int
    content: bytes = field(repr=False)
    least: int = 1

    def load(self, reduction: int = 1) -> Image.Image:
        """Pixels as upright RGB.

        Args:
            reduction: 1, 2, 4 or 8: a JPEG may be decoded at 1/reduction of its size (in the DCT, nearly free). Other
                formats come at full size; read the scale off the returned image.
        """
        try:
            return decoding.upright(self.image, max(reduction, self.least))
        except Exception as error:
            raise _bad(error) from error

    def load_values(self) -> Image.Image:
        """Pixels as they are stored, in any mode: of a mask, whose values are classes.

        Raises:
            BadImage: they cannot be decoded.
        """
        try:
            self.image.load()
            return self.image
        except Exception as error:
            raise _bad(error) from error


def _bad(error: Exception) -> BadImage:
    """The kind of trouble a decoder's exception stands for."""
    text = " ".join(str(error).split())[:200]
    if isinstance(error, BadImage):
        return error
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return BadImage("too_large", text)
    if isinstance(error, UnidentifiedImageError):
        return BadImage("not_image", "no decoder knows its first bytes")
    if isinstance(error, FileNotFoundError):
        return BadImage("missing", text)
    if isinstance(error, EOFError | struct.error) or any(
        word in text for word in ("truncated", "Truncated", "broken data")
    ):
        return BadImage("truncated", text)
    return BadImage("corrupt", f"{type(error).__name__}: {text}")


def open_image(data: bytes | None, path: str | None = None, max_pixels: int | None = None) -> OpenedImage:
    """Reads the header of an image.

    Args:
        data: the file's content; None to read `path`.
        path: a local file, used when there is no data.
        max_pixels: a larger JPEG (width x height) is decoded reduced, so that it has no more; other formats are
            refused from their header, before memory is touched. None: `MAX_PIXELS`.

    Raises:
        BadImage: with the kind of trouble.
    """
    try:
        if data is None:
            if not path:
                raise BadImage("missing", "neither bytes nor a path")
            data = _content(path)
        if not data:
            raise BadImage("empty", "zero bytes")
        image = decoding.open_lazily(data, FORMATS)
        width, height = image.size
        most = max_pixels or MAX_PIXELS
        progressive = "progressive" in image.info
        least = decoding.reduction_to(image.size, image.format, most, progressive)
        if least is None:
            what = "pixels of a progressive JPEG" if progressive else "pixels"
            raise BadImage("too_large", f"{width} x {height} {what}, allowed are {most} (--max_pixels allows more)")
        turn = decoding.orientation(image)
        return OpenedImage(image, (height, width) if turn >= 5 else (width, height), turn, data, least)
    except Exception as error:
        raise _bad(error) from error


def _content(path: str) -> bytes:
    """The content of a regular file: a pipe is not waited for, and a device has no end.

    Raises:
        BadImage: it is none, or larger than an image of any kind.
    """
    with open(path, "rb", opener=without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not_image", "it is no regular file")
        if status.st_size > MAX_BYTES:
            raise BadImage("too_large", f"{status.st_size:,} bytes, allowed are {MAX_BYTES:,}")
        return file.read()
