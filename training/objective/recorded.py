# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The terms of shapes that come again as one CUDA graph: at small batches the host needs longer to launch the kernels
one by one than the device to compute them.

A graph reads and writes memory of its own, so what goes in is copied into it and what comes out is copied out of it,
in the order of the current stream: nothing that was handed out is written again. Before a graph is used, its values
are compared with those of the kernels themselves; where CUDA refuses one, or it is wrong, they go on one by one.

Shapes: z (V views, B images, D dimension), directions (D, K slices).
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..errors import one_line
from .slices import gaussian_quantiles


logger = logging.getLogger(__name__)

SEEN_BEFORE = 3  # calls of the same shapes after which a graph is worth its tens of milliseconds
MOST = 4  # graphs, each with memory for one chunk of slices and its results: 40 to 80 MB
LARGEST = 1 << 22  # numbers of z and directions: with more, it is the device that one waits for
FORGET_AFTER = 256  # sizes and weights seen: a weight that changes with every step is never seen again

Options = tuple[int, float, list[float]]  # num_global, eps, weights
Compute = Callable[..., tuple[Tensor, ...]]  # of z, directions, *options, need_gradient


class Graph(Protocol):
    """What a computation is kept as."""

    outputs: Sequence[Tensor]

    def wait(self) -> None:
        """Let the current stream wait for the one on which the graph was used last."""

    def replay(self) -> None:
        """Compute `outputs` again, in their memory, from what the inputs hold now."""


class CudaGraph:
    """A computation on the current device, recorded while it runs once.

    Args:
        compute: launches kernels that were launched before: while one is recorded, none can be compiled.
    """

    def __init__(self, compute: Callable[[], Sequence[Tensor]]):
        self.stream, self.graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        try:
            # Other threads copy and color the next views meanwhile: what they do is no mistake of this one.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.outputs = compute()
        finally:
            torch.cuda.set_stream(self.stream)  # where it fails, torch leaves the one that it recorded on

    def wait(self) -> None:
        """As in `Graph`."""
        current = torch.cuda.current_stream()
        if current != self.stream:
            current.wait_stream(self.stream)
            self.stream = current

    def replay(self) -> None:
        """As in `Graph`."""
        self.graph.replay()


class Recording:
    """The terms, moments and slope of z and directions of one shape, with these options.

    Args:
        compute: what is recorded (merged.py).
        z, directions: examples, on the device.
        options: of the terms.
        record: makes the graph.
    """

    def __init__(
        self,
        compute: Compute,
        z: Tensor,
        directions: Tensor,
        options: Options,
        record: Callable[[Callable[[], Sequence[Tensor]]], Graph] = CudaGraph,
    ):
        self.inputs = [torch.zeros_like(z), torch.zeros_like(directions)]
        self.quantiles = gaussian_quantiles(z.shape[1], z.device, torch.float32)  # read, and must not be freed
        compute(*self.inputs, *options, True)  # compiles what is not compiled yet
        self.graph = record(lambda: compute(*self.inputs, *options, True))
        self.lock = threading.Lock()

    def __call__(self, z: Tensor, directions: Tensor) -> tuple[Tensor, ...]:
        """What `compute` gives, in new memory."""
        with self.lock, torch.cuda.device_of(z):
            self.graph.wait()
            torch._foreach_copy_(self.inputs, [z, directions])
            self.graph.replay()
            found = [torch.empty_like(output) for output in self.graph.outputs]
            torch._foreach_copy_(found, list(self.graph.outputs))
        return tuple(found)


class Recorder:
    """Recordings of what is computed again and again.

    Args:
        compute: what is recorded.
        record: makes a graph.
    """

    def __init__(self, compute: Compute, record: Callable[..., Graph] = CudaGraph):
        self.compute, self.record = compute, record
        self.seen: Counter[Hashable] = Counter()
        self.recordings: dict[Hashable, Recording | None] = {}
        self.lock = threading.Lock()

    def recording(self, z: Tensor, directions: Tensor, options: Options) -> Recording | None:
        """The recording for these shapes and options; None where there is none yet, or none can be."""
        num_global, eps, weights = options
        key = (z.shape, z.dtype, z.device, directions.shape, num_global, eps, tuple(weights))
        if key in self.recordings:
            return self.recordings[key]
        with self.lock:  # one thread records at a time
            if key not in self.recordings and self.due(key, z, directions):
                self.recordings[key] = self.checked(z, directions, options)
            return self.recordings.get(key)

    def due(self, key: Hashable, z: Tensor, directions: Tensor) -> bool:
        """Whether what came now, once more, is to be recorded."""
        if len(self.recordings) == MOST or z.numel() + directions.numel() > LARGEST:
            return False
        if len(self.seen) > FORGET_AFTER:
            self.seen.clear()
        self.seen[key] += 1
        return self.seen[key] > SEEN_BEFORE

    def checked(self, z: Tensor, directions: Tensor, options: Options) -> Recording | None:
        """A new recording that computes what the kernels do, bit for bit; or None."""
        try:
            with torch.no_grad(), torch.cuda.device_of(z):
                expected = self.compute(z, directions, *options, True)
                recording = Recording(self.compute, z, directions, options, self.record)
                found = recording(z, directions)
                for one, other in zip(found, expected, strict=True):
                    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        except (RuntimeError, AssertionError) as error:
            logger.warning("The objective's kernels are launched one by one, not as a CUDA graph: %s", one_line(error))
            return None
        return recording


def usable(z: Tensor) -> bool:
    """Whether there are CUDA graphs for z, and nobody records one at this moment."""
    return z.device.type == "cuda" and not torch.cuda.is_current_stream_capturing()
