# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Colour on the device: batched, parameters a crop, as torchvision's but for the whole batch at once.

Shapes: N crops, C = 3; images (N, C, H, W) uint8 in, normalised float out.
"""
import torch
from torch import nn
class DeviceAugment(nn.Module):
    pass
