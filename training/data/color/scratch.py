# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Memory that each part of a batch uses again."""

import math

import torch


class Scratch:
    """Named float32 buffers of one device: on a CPU, fresh temporaries are paid for in page faults."""

    def __init__(self, device: torch.device):
        self._device = device
        self._buffers: dict[str, torch.Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor with what the last one of this name left in it."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, device=self._device)
        return self._buffers[name][:size].view(shape)
