# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The data path: open a source, crop in the workers, color on the device.

source = open_stream("digits")
loader = PretrainingLoader(source, MultiCrop(), batch_size=64, seed=0)
augment = DeviceAugment()
views, labels, ids = next(loader)      # uint8, one tensor a resolution: (V_r, B, C, H, W)
"""

from .color import DeviceAugment
from .crops import MultiCrop
from .decode import BadImage
from .loader import MultiViewBatch, PretrainingLoader
from .opening import open_stream
from .options import ColorOptions, CropOptions, LoaderOptions, SourceOptions, SubsetOptions
from .preview import preview
from .reference import TorchvisionReference
from .skips import BadDataError
from .source import MapSource, NoSuchSplit, Source, StreamSource
from .subsets import Subset


__all__ = [
    "BadDataError",
    "BadImage",
    "ColorOptions",
    "CropOptions",
    "DeviceAugment",
    "LoaderOptions",
    "MapSource",
    "MultiCrop",
    "MultiViewBatch",
    "NoSuchSplit",
    "PretrainingLoader",
    "Source",
    "SourceOptions",
    "StreamSource",
    "Subset",
    "SubsetOptions",
    "TorchvisionReference",
    "open_stream",
    "preview",
]
