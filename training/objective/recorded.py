# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The terms and their gradient as one CUDA graph: at small batches the host needs longer to launch than the device to
compute.

A graph works on memory of its own, so what goes in is copied into it and what comes out is copied out of it, in the
order of the current stream: nothing that was handed out is ever written again.

Shapes: z (V views, B images, D dimension), directions (D, K slices).
"""

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor


logger = logging.getLogger(__name__)

SEEN_BEFORE = 3  # calls of the same shapes after which a graph is worth its 20 ms and some 60 MB
KEPT = 4  # graphs of different shapes
LARGEST = 1 << 22  # numbers of z: with more, the device is what one waits for

Options = tuple[int, float, list[float]]  # num_global, eps, weights


class Recording:
    """One graph, for z and directions of the given shapes.

    Args:
        z, directions: an example, on the device.
        options: of the terms.
        compute_terms, compute_gradient: what is recorded (merged.py).
    """

    def __init__(self, z: Tensor, directions: Tensor, options: Options, compute_terms, compute_gradient):
        self.options = options
        self.z, self.directions = z.detach().clone(), directions.detach().clone()
        self.one = torch.ones((), device=z.device)
        self.stream, self.lock = torch.cuda.current_stream(z.device), threading.Lock()

        def compute() -> tuple[Tensor, Tensor]:
            *terms, moments, slope = compute_terms(self.z, self.directions, *options, True)
            upstream = [self.one, None, None, None, None, None]
            slices = self.directions.shape[1]
            return torch.stack(terms), compute_gradient(upstream, self.z, moments, slope, slices, *options)

        compute()  # compiles what is not compiled yet: that cannot be recorded
        self.graph = torch.cuda.CUDAGraph()
        # Other threads copy and color the next views meanwhile: what they do is no mistake of this one.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.terms, self.gradient = compute()

    def replay(self, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """(terms (6,), the gradient of the first of them in z), in new memory."""
        with self.lock, torch.cuda.device_of(z):
            current = torch.cuda.current_stream()
            if current != self.stream:
                current.wait_stream(self.stream)
                self.stream = current
            self.z.copy_(z.detach())
            self.directions.copy_(directions)
            self.graph.replay()
            return self.terms.clone(), self.gradient.clone()


class Recorder:
    """Recordings of the shapes that come again and again.

    Args:
        compute_terms, compute_gradient: what is recorded.
    """

    def __init__(self, compute_terms: Callable[..., tuple[Tensor, ...]], compute_gradient: Callable[..., Tensor]):
        self.computed = compute_terms, compute_gradient
        self.seen: Counter[Hashable] = Counter()
        self.recordings: OrderedDict[Hashable, Recording | None] = OrderedDict()

    def recording(self, z: Tensor, directions: Tensor, options: Options) -> Recording | None:
        """The graph for these shapes; None where there is none yet, or none can be."""
        if z.device.type != "cuda" or z.numel() > LARGEST or torch.cuda.is_current_stream_capturing():
            return None
        num_global, eps, weights = options
        key = (z.shape, z.dtype, z.device, directions.shape, num_global, eps, tuple(weights))
        if key in self.recordings:
            self.recordings.move_to_end(key)
            return self.recordings[key]
        self.seen[key] += 1
        if self.seen[key] <= SEEN_BEFORE:
            return None
        del self.seen[key]
        self.recordings[key] = self.record(z, directions, options)
        if len(self.recordings) > KEPT:
            self.recordings.popitem(last=False)
        return self.recordings[key]

    def record(self, z: Tensor, directions: Tensor, options: Options) -> Recording | None:
        """A new graph, or None where CUDA refuses: the kernels are launched one by one then."""
        try:
            with torch.no_grad(), torch.cuda.device_of(z):
                return Recording(z, directions, options, *self.computed)
        except RuntimeError as error:
            logger.debug("The objective is not recorded as a CUDA graph: %s", error)
            return None
