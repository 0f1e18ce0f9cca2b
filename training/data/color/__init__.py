# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The color augmentation of a batch: on a GPU or a CPU, the same views.

parameters.py   options and a generator -> what is done to each crop
device.py       `DeviceAugment`: applies it to a uint8 batch, on the device that the batch is on
transforms.py   jitter and grayscale as two affine transforms per crop, with the hue between them
filters.py      blur and solarize
fused.py        all of it on an NVIDIA GPU, in a few kernels
kernels.py      those, in Triton
scratch.py      memory that is used again
"""

from .device import DeviceAugment
from .parameters import AugmentParameters, color_options


__all__ = ["AugmentParameters", "DeviceAugment", "color_options"]
