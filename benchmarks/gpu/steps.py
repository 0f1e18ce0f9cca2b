# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whole steps with the same ready-made views: ours, beside a timm ViT with lightly's loss, eager and compiled.

Both sides: bf16 autocast, the objective in float32, fused AdamW with our parameter groups, the gradient clipped at 1,
drop path 0.1, and the paper's projector. Ours is the update loop of `visreg pretrain`.

Shapes: V views, B images; views of one resolution are (V_r, B, 3, H, W).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..measuring import add_measure
from .timing import DEVICE, autocast, card, launches, measured, peak_since, peak_start, synchronize
from .waves import wait_for_turn


LARGE = {"model": "vit_large", "patch_size": 14, "projection_size": 384, "local_size": 98}
MODELS: dict[str, dict[str, Any]] = {
    "S/16": {"model": "vit_small", "patch_size": 16, "projection_size": 256, "local_size": 96},
    "B/16": {"model": "vit_base", "patch_size": 16, "projection_size": 256, "local_size": 96},
    "L/14": LARGE,
    "toy": {
        "model": "vit_tiny",
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "patch_size": 8,
        "projection_size": 16,
        "projector_hidden_size": 32,
        "num_slices": 32,
        "global_size": 32,
        "local_size": 16,
    },
}
COMPILE = {"eager": "no", "compiled blocks": "blocks", "compiled model": "model"}


def options_of(model: str, batch: int) -> dict[str, Any]:
    """Options of `visreg pretrain` for a model of `MODELS`."""
    common = {"dataset": "digits", "num_global": 4, "num_local": 6, "global_size": 224, "global_batch_size": batch}
    fixed = {"max_steps": 10**6, "online_probe": False, "mixed_precision": "bf16", "drop_path_rate": 0.1}
    return common | fixed | MODELS[model]


def make_views(options: Any, batch: int) -> list[torch.Tensor]:
    """Normalized views without content, one tensor a resolution."""
    torch.manual_seed(0)
    return [torch.randn(count, batch, 3, side, side, device=DEVICE) for count, side in options.resolutions()]


class SameBatch:
    """The same views at every step."""

    def __init__(self, views: list[torch.Tensor]):
        from visreg_training.data import MultiViewBatch

        labels = torch.full((views[0].shape[1],), -1)
        known = {"views": views, "labels": labels, "ids": []}
        self.batch = MultiViewBatch(**known | dict.fromkeys(set(MultiViewBatch._fields) - set(known)))

    def __next__(self) -> Any:
        return self.batch


def our_step(model: str, batch: int, compiled: str) -> tuple[Callable[[], object], float]:
    """One update of `visreg pretrain`'s loop, and the FLOPs of an image's step."""
    from visreg_training.config import config_from, from_keywords
    from visreg_training.config.estimate import step_cost
    from visreg_training.loop.run import build_run, build_step_on_meta
    from visreg_training.loop.updates import prepare, updates

    options = from_keywords(**options_of(model, batch), output_dir=tempfile.mkdtemp(), compile=compiled)
    run = build_run(options, choose_missing=False)
    every: Iterator = updates(run, prepare(run), SameBatch(make_views(options, batch)))
    cost = step_cost(build_step_on_meta(options, config_from(options)), options.resolutions(), 8, 8, 2)
    return lambda: next(every), cost.flops / 8


def peer_step(model: str, batch: int, compiled: bool) -> tuple[Callable[[], object], None]:
    """One update of the loop that anybody writes on timm and lightly."""
    from lightly.loss import VISRegLoss

    from visreg_training.config import config_from, from_keywords
    from visreg_training.loop.optimizer import parameter_groups

    from ..lightly_loop import make_backbone, make_projector

    options = from_keywords(**options_of(model, batch), output_dir=tempfile.mkdtemp())
    config = config_from(options)
    sizes = config.to_dict() | {"global_size": options.global_size}
    backbone, projector = make_backbone(sizes).to(DEVICE), make_projector(sizes).to(DEVICE)
    module = torch.nn.ModuleList([backbone, projector])
    loss = VISRegLoss(lambda_param=options.regularization_weight, num_slices=options.num_slices)
    optimizer = torch.optim.AdamW(parameter_groups(module, 0.05), lr=1e-3, fused=True)
    views = make_views(options, batch)
    if compiled:
        backbone.compile(dynamic=False)

    def step() -> None:
        with autocast():
            features = [backbone(group.flatten(0, 1)) for group in views]
            rows = [projector(one).unflatten(0, (-1, batch)).float() for one in features]
        loss(global_proj=rows[0], local_proj=rows[1]).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, None


def measure(side: str, model: str, batch: int, repeats: int = 10) -> dict:
    """Rates of one side; waits for its turn after the first step."""
    started, before = time.perf_counter(), peak_start()
    kind, _, compiled = side.partition(", ")
    if kind == "ours":
        step, flops = our_step(model, batch, COMPILE[compiled])
    else:
        step, flops = peer_step(model, batch, compiled == "compiled")
    built = time.perf_counter()
    step()
    synchronize()
    first = time.perf_counter()
    wait_for_turn()
    timed = measured(step, warm=3, repeats=repeats)
    return timed | {
        "side": side,
        "model": model,
        "B": batch,
        "card": card(),
        "build_seconds": built - started,
        "first_step_seconds": first - built,
        "images_per_second": 1000 * batch / timed["device"],
        "peak_mb": peak_since(before) / 1e6,
        "launches": launches(step),
        "flops_per_image": flops,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_measure(parser)
    result = measure(*parser.parse_args().measure)
    print(json.dumps(result))
