# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Kernel launches of what a step does beside its backbone, counted over fake CUDA tensors: no GPU, no memory.

An operator of torch below autograd counts as one launch; views and bare allocations as none. What the CUDA sources
launch more often counts as that: operators on lists, cut into pieces of 320 chunks and a fixed number of tensors, and
the backward of LayerNorm. Copies and casts count. Backward does not run over fake CUDA tensors where there is no
driver: what has one is counted on the CPU. Compiled code is not seen through; the profiler counts its launches, in
benchmarks/gpu.py. launches.py beside this file sees Triton's kernels, and takes each list for one launch.
"""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


CHUNK, CHUNKS = 65536, 320  # numbers of a chunk, chunks of a launch: MultiTensorApply.cuh
TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}  # of a launch, by lists that go in together
SEVERAL = {"native_layer_norm_backward": 2}
NONE = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_unsafe_view", "set_", "detach"}


def of_lists(depth: int, sizes: list[int]) -> int:
    """Launches for `depth` lists of tensors of these sizes: as MultiTensorApply fills them."""
    launches, tensors, chunks = 0, 0, 0
    for size in sizes:
        tensors += 1
        for _chunk in range(math.ceil(size / CHUNK)):
            chunks += 1
            if chunks == CHUNKS:
                launches, chunks, tensors = launches + 1, 0, 1
        if tensors == TENSORS[depth] and chunks:
            launches, chunks, tensors = launches + 1, 0, 0
    return launches + (chunks > 0)


class PartLaunches(TorchDispatchMode):
    """`parts` counts launches by the part that was named last, `operators` by (part, operator)."""

    def __init__(self, device: str = "cuda"):
        super().__init__()
        self.device = device
        self.part = "step"
        self.operators: Counter[tuple[str, str]] = Counter()

    @property
    def parts(self) -> Counter[str]:
        sums: Counter[str] = Counter()
        for (part, _operator), count in self.operators.items():
            sums[part] += count
        return sums

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        outer, self.part = self.part, part
        try:
            yield
        finally:
            self.part = outer

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        name = function._schema.name.partition("::")[2]
        if function.namespace == "aten" and not function.is_view and name not in NONE:
            self.operators[self.part, name] += self.count(name, args, output)
        return output

    def count(self, name: str, args: Any, output: Any) -> int:
        tensors = [leaf for leaf in tree_leaves((args, output)) if isinstance(leaf, torch.Tensor)]
        if not any(tensor.device.type == self.device for tensor in tensors):
            return 0
        lists = [value for value in args if isinstance(value, list) and value and isinstance(value[0], torch.Tensor)]
        if not name.startswith(("_foreach", "_fused")):
            return SEVERAL.get(name, 1)
        # AdamW's lists of steps and of amsgrad's maxima are no lists of the same sizes.
        depth = 4 if name.startswith("_fused") else len(lists) + (not name.endswith("_") and name != "_foreach_norm")
        launches = of_lists(min(depth, 5), [tensor.numel() for tensor in lists[0]])
        return launches + (2 if name == "_foreach_norm" else 0)  # zeros for the sums of chunks, and their sums


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Tensors made inside on "cuda" have no memory, and need no GPU."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
