# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""torch.compile for the backbone of a run: its blocks, which share one graph, or the whole of it.

The blocks are where the time goes. Compiled together with all around them they are one graph for each of L blocks;
compiled once, as a function of which the block is an argument, they need L times less of the compiler, and what
stays outside (hooks that collect hidden states, FSDP's hooks, activation checkpointing) stays plain Python. Compiled
blocks also take the tokens of all resolutions at once, and patches are cut for one product (packed.py).
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from modeling_visreg import VISRegViTModel

from ..compat import (
    allow_graphs,
    check_tracing,
    checkpoints_in_forward,
    compile_without_ddp_splits,
    install_capturing_hooks,
    traces_transformers,
)
from ..errors import one_line
from .packed import Packing, packed_block, patch_products


# Of a block: 2 resolutions, a last micro-batch of another size, and blocks that are frozen, the first after them, or
# whose inputs have a gradient: 12.
MOST_GRAPHS = 16


def compile_mode(wanted: str, device: torch.device) -> str:
    """What `--compile` comes to on a device: "blocks", "model" or "no".

    "auto" compiles the blocks where there are CUDA, Triton and a torch that traces transformers.

    Raises:
        ValueError: "blocks" or "model", and a torch that cannot.
    """
    if wanted == "auto":
        able = device.type == "cuda" and importlib.util.find_spec("triton") is not None and traces_transformers()
        return "blocks" if able else "no"
    if wanted != "no":
        check_tracing(f"--compile {wanted}")
    return wanted


def tell_uncompiled(kind: str, wanted: str, device: torch.device) -> None:
    """Say that a backbone of another family is not compiled, where ours would be."""
    if compile_mode(wanted, device) != "no":
        print(f"{kind} is not compiled: only our own ViT is", file=sys.stderr)


def compile_backbone(vit: VISRegViTModel, wanted: str, device: torch.device, announced: bool) -> None:
    """Compile in place, so that parameter names, and with them checkpoints, stay as they are.

    Args:
        vit: the backbone of a run.
        wanted: the option's value. Where it is "auto", a compiler that fails costs a warning, else the run.
        device: that it will be trained on.
        announced: whether this process says that it compiles.
    """
    mode = compile_mode(wanted, device)
    if mode == "no":
        return
    torch.compiler.reset()  # graphs of an earlier run of this program count towards dynamo's limit
    if mode == "model":
        # Hooks that collect hidden states would be installed at the first forward, under a lock that breaks the graph.
        install_capturing_hooks(vit.encoder)
        vit.compile(dynamic=False)
        return
    install_capturing_hooks(vit.encoder, attentions=False)  # those would be traced with the blocks
    compile_without_ddp_splits()
    allow_graphs(MOST_GRAPHS)
    blocks = list(vit.encoder.layer)
    # Without what transformers wraps around it, which checkpoints.
    forward = partial(either_forward, inspect.unwrap(type(blocks[0]).forward))
    compiled = CompiledBlock(forward, wanted == "auto", announced)
    patches = vit.embeddings.patch_embeddings
    patches.forward = partial(patch_products, patches)
    for block in blocks:
        checkpoints = checkpoints_in_forward(type(block))
        block.forward = partial(checkpointed if checkpoints else compiled, *([compiled] if checkpoints else []), block)


def either_forward(
    plain: Callable[..., torch.Tensor],
    block: nn.Module,
    tokens: torch.Tensor,
    *inputs: Any,
    packing: Packing | None = None,
    **options: Any,
) -> torch.Tensor:
    """A block's forward for tokens of all resolutions if there is a `packing`, else its own for (B, 1 + N, d)."""
    if packing is None:
        return plain(block, tokens, *inputs, **options)
    return packed_block(block, tokens, *inputs, packing=packing)


def checkpointed(compute: Callable, block: nn.Module, *inputs: Any, **options: Any) -> torch.Tensor:
    """What transformers' forward of a block does: `compute` under activation checkpointing where that is on."""
    if block.training and block.gradient_checkpointing:
        return block._gradient_checkpointing_func(partial(compute, block, **options), *inputs)
    return compute(block, *inputs, **options)


class CompiledBlock:
    """A block's forward, compiled once for all blocks: called with the block and its arguments.

    Args:
        forward: of the class, the block its first argument.
        may_fail: go on without the compiler, with a warning, where it fails.
        announced: say at the first call what takes so long.
    """

    def __init__(self, forward: Callable[..., torch.Tensor], may_fail: bool, announced: bool):
        self.plain, self.may_fail, self.announced = forward, may_fail, announced
        self.compiled = torch.compile(forward, dynamic=False, fullgraph=True)
        self.called = False

    def __call__(self, block: nn.Module, *inputs: Any, **options: Any) -> torch.Tensor:
        if not self.called:
            self.called = True
            if self.announced:
                print("compiling the blocks: the first step takes longer", file=sys.stderr)
        try:
            return self.compiled(block, *inputs, **options)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler throws; an error of the block itself comes again below
            if not self.may_fail:
                raise
            self.compiled, self.may_fail = self.plain, False
            print(f"warning: not compiled ({one_line(error)[:200]}): the steps will be slower", file=sys.stderr)
            return self.plain(block, *inputs, **options)
