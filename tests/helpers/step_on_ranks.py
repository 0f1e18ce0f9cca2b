# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What the processes of test_step.py run: one step on a rank's share of a fixed batch; writes loss and gradients.

usage: step_on_ranks.py WORLD FOLDER OPTIONS [DEVICE]   (OPTIONS: a JSON list, one step for each; DEVICE: cpu, or cuda
for one rank over NCCL)

The ranks are forked before torch computes anything, so that they share one import of it.
"""

import inspect
import json
import multiprocessing
import sys
from functools import partial
from unittest.mock import patch

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from visreg_training.compat import traces_transformers
from visreg_training.loop.compiling import compile_backbone
from visreg_training.loop.step import PretrainingStep
from visreg_training.objective import VISRegObjective


IMAGES, GLOBAL, LOCAL = 12, 2, 3
# torch 2.14 has a new name for it, and warns of the old one.
BUFFERS_STAY = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else {"broadcast_buffers": False}
)
COMPILES = traces_transformers()
# FSDP2 records events on the streams of a CPU too, which torch 2.6 has not.
SHARDS_ON_CPUS = hasattr(torch.cpu.Stream, "record_event")


def make_step(micro_batch_size=None, drop_path_rate=0.0, compiled=False, **options) -> PretrainingStep:
    """A small model, the same on every rank; `compiled` by what takes no time."""
    torch.manual_seed(0)
    config = VISRegViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
        projection_size=24,
        projector_hidden_size=40,
        drop_path_rate=drop_path_rate,
    )
    objective = VISRegObjective(num_slices=50, regularization_weight=0.6, **options)
    model = VISRegViTForPreTraining(config)
    if compiled:
        with patch.object(torch, "compile", partial(torch.compile, backend="aot_eager")):
            compile_backbone(model.vit, "blocks", torch.device("cpu"), announced=False)
    return PretrainingStep(model, objective, GLOBAL, micro_batch_size, packed=compiled)


def make_views() -> list[torch.Tensor]:
    """Views of 12 images in two resolutions: (V_r, B, C, H, W)."""
    draws = torch.Generator().manual_seed(1)
    images = torch.randn(1, IMAGES, 3, 16, 16, generator=draws)
    noise = torch.randn(GLOBAL, IMAGES, 3, 16, 16, generator=draws)
    small = torch.randn(LOCAL, IMAGES, 3, 8, 8, generator=draws)
    return [images + 0.3 * noise, images[..., ::2, ::2] + 0.3 * small]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor put together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard(step: PretrainingStep, device: str) -> PretrainingStep:
    """FSDP2 as Accelerate applies it: each block a unit, the rest the root."""
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    for layer in step.model.vit.encoder.layer:
        fully_shard(layer, mesh=mesh)
    return fully_shard(step, mesh=mesh)


def take_step(module, views, seed=5, step=7) -> dict[str, torch.Tensor]:
    """Terms, parameter gradients and batch-norm statistics after one step."""
    module.train()
    torch.manual_seed(seed)
    output = module(views, step)
    output.terms.total.backward()
    result = {f"terms.{name}": value.detach() for name, value in output.terms._asdict().items()}
    inner = getattr(module, "module", module)
    result |= {f"grad.{name}": whole(p.grad) for name, p in inner.named_parameters() if p.grad is not None}
    return result | {f"buffer.{name}": b.clone() for name, b in inner.named_buffers() if b.is_floating_point()}


def on_rank(rank: int, world: int, folder: str, cases: list[dict], device: str) -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    share = IMAGES // world
    views = [group[:, rank * share : (rank + 1) * share].to(device) for group in make_views()]
    for number, options in enumerate(cases):
        sharded = options.pop("sharded", False)
        module = make_step(**options).to(device)
        if sharded:
            module = shard(module, device)
        else:
            module = DistributedDataParallel(module, gradient_as_bucket_view=True, **BUFFERS_STAY)
        result = {name: value.cpu() for name, value in take_step(module, views).items()}
        torch.save(result, f"{folder}/{number}-{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def main() -> None:
    world, folder, cases = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    device = sys.argv[4] if len(sys.argv) > 4 else "cpu"
    if world == 1:  # here: a process that asked for GPUs may not fork one that uses them
        on_rank(0, 1, folder, cases, device)
        return
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=on_rank, args=(rank, world, folder, cases, device)) for rank in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in ranks))


if __name__ == "__main__":
    main()
