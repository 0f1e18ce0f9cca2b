# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F401
"""The data path: open a source, crop in the workers, color on the device.

    source = open_stream("digits")
    loader = PretrainingLoader(source, MultiCrop(), batch_size=64, seed=0)
    augment = DeviceAugment()
    views, labels, ids = next(loader)      # uint8, one tensor per resolution: (V_r, B, C, H, W)

Reading order:
options.py                    every option with its default, range and source
sources/, subsets.py          what `open_stream` opens, and which part of it is used
decode.py, skips.py           bytes -> upright RGB; what cannot be read is counted
crops.py                      `MultiCrop`: an image -> uint8 views
batch.py                      the views of B images in shared memory
map_feed.py, stream_feed.py   which images make a rank's next batch; shards.py reads a shard from any row on
loader.py                     `PretrainingLoader`: worker processes, position, exact resumption
color/                        `DeviceAugment`: a uint8 batch -> normalized float, on the device
reference.py                  the same views by torchvision
preview.py                    a sheet of views to look at
pack.py, pack_image.py        a source as parquet files of smaller images
"""

from typing import TYPE_CHECKING

from ..lazy import face


if TYPE_CHECKING:
    from .color import DeviceAugment
    from .crops import MultiCrop
    from .decode import BadImage
    from .loader import MultiViewBatch, PretrainingLoader
    from .options import ColorOptions, CropOptions, LoaderOptions, PackOptions, SourceOptions, SubsetOptions
    from .preview import preview
    from .reference import TorchvisionReference
    from .skips import BadDataError
    from .sources import MapSource, NoSuchSplit, Source, StreamSource, open_stream
    from .subsets import Subset


# File -> its public names, imported when they are used: what only reads options needs no torch.
_NAMES = {
    "color": ("DeviceAugment",),
    "crops": ("MultiCrop",),
    "decode": ("BadImage",),
    "loader": (
        "MultiViewBatch",
        "PretrainingLoader",
    ),
    "options": (
        "ColorOptions",
        "CropOptions",
        "LoaderOptions",
        "PackOptions",
        "SourceOptions",
        "SubsetOptions",
    ),
    "preview": ("preview",),
    "reference": ("TorchvisionReference",),
    "skips": ("BadDataError",),
    "sources": (
        "MapSource",
        "NoSuchSplit",
        "Source",
        "StreamSource",
        "open_stream",
    ),
    "subsets": ("Subset",),
}
__all__ = sorted(name for names in _NAMES.values() for name in names)
__getattr__, __dir__ = face(__name__, _NAMES)
