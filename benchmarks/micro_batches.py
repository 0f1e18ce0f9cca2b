# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Peak memory and time of exact micro-batches against the undivided batch and against the micro-batch trained alone.

usage: python -m benchmarks.micro_batches [--batch 128] [--micro 16]

Each side runs in a fresh process; peaks are extra to what the process held with its model and views: of the tensors
that torch allocates, and of resident memory. For the latter the C library is told to give freed blocks above 1 MB back
at once (MALLOC_MMAP_THRESHOLD_): by default it keeps them in a heap, which the many sizes of micro-batches fragment.
"""

import argparse
import json
import time

from .measuring import add_measure, allocated_peak, in_fresh_process


def measure(batch: int, micro: int) -> dict:
    import torch

    from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
    from visreg_training.analysis.memory import extra_peak
    from visreg_training.loop.step import PretrainingStep
    from visreg_training.objective import VISRegObjective

    config = VISRegViTConfig(
        hidden_size=192, num_hidden_layers=6, num_attention_heads=3, image_size=64, patch_size=8, projection_size=64
    )
    step = PretrainingStep(VISRegViTForPreTraining(config), VISRegObjective(num_slices=256), 2, micro).train()
    views = [torch.randn(2, batch, 3, 64, 64), torch.randn(4, batch, 3, 32, 32)]

    def call() -> None:
        step(views, 0).terms.total.backward()

    step([group[:, :2] for group in views], 0).terms.total.backward()  # gradients exist, kernels are loaded
    peak, allocated = extra_peak(call, views[0].device), allocated_peak(call)
    start = time.perf_counter()
    call()
    features = 4 * 6 * batch * (config.hidden_size + config.projection_size)
    return {"peak": peak, "allocated": allocated, "seconds": time.perf_counter() - start, "features": features}


def fresh(batch: int, micro: int) -> dict:
    environment = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    return in_fresh_process("micro_batches", batch, micro, environment=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--micro", type=int, default=16)
    add_measure(parser)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(*given.measure)))
        return
    alone, parts = fresh(given.micro, given.micro), fresh(given.batch, given.micro)
    whole = fresh(given.batch, given.batch)
    print(
        "| side | tensors MB | of the micro-batch alone | resident MB | of it | seconds an image, of the whole batch |"
    )
    print("|---|---|---|---|---|---|")
    sides = {
        f"batch {given.micro} alone": (alone, given.micro),
        f"batch {given.batch} in micro-batches of {given.micro}": (parts, given.batch),
        f"batch {given.batch} undivided": (whole, given.batch),
    }
    for name, (got, images) in sides.items():
        slower = got["seconds"] / images / (whole["seconds"] / given.batch)
        cells = [f"{got[kind] / 1e6:.0f} | {got[kind] / alone[kind]:.2f}" for kind in ("allocated", "peak")]
        print(f"| {name} | {' | '.join(cells)} | {slower:.2f} |")
    print(f"\nfeatures and projections kept: {parts['features'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
