# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The objective, forward and backward, beside lightly's, plain autograd and the arithmetic floor.

The floor is two float32 products of the projections' size and a torch.sort of them, in chunks: what torch's own
operations cannot go below. `products` is the same without the sort.

Shapes: z (V = 10 views, 4 of them global; B images, D dimension), directions (D, K slices).
"""

import argparse
import json
from collections.abc import Callable

import torch

from ..measuring import add_measure
from .timing import DEVICE, card, measured


VIEWS, NUM_GLOBAL = 10, 4
CASES = [
    {"B": 64, "D": 256, "K": 4096},
    {"B": 512, "D": 256, "K": 4096},
    {"B": 512, "D": 256, "K": 16384},
    {"B": 1024, "D": 384, "K": 4096},
    {"B": 4096, "D": 256, "K": 4096},
    {"B": 8192, "D": 256, "K": 1024},
]
SMALL = [{"B": 16, "D": 8, "K": 32}]
SIDES = ("ours", "ours, SIGReg", "lightly", "plain", "floor", "products")
PLAIN_LIMIT = 1 << 30  # V * B * K: plain autograd keeps several times that


def build(side: str, case: dict[str, int], z: torch.Tensor) -> Callable[[], object]:
    """One forward and backward of a side on z."""
    from visreg_training.objective import VISRegObjective, invariance_loss, sample_directions

    from .. import plain

    slices = case["K"]
    if side in ("floor", "products"):
        return lambda: floor(z.detach(), slices, side == "floor")
    if side == "lightly":
        from lightly.loss import VISRegLoss

        peer = VISRegLoss(num_slices=slices)
        return backward(z, lambda z: peer(local_proj=z[NUM_GLOBAL:], global_proj=z[:NUM_GLOBAL]))
    if side == "plain":

        def total(z: torch.Tensor) -> torch.Tensor:
            directions = sample_directions(z.shape[2], slices, device=z.device)
            regularizer = plain.scale(z) + plain.shape(z, directions) + z.mean(1).square().mean()
            return 0.9 * regularizer + 0.1 * invariance_loss(z, NUM_GLOBAL)

        return backward(z, total)
    kind = "sigreg" if "SIGReg" in side else "visreg"
    objective = VISRegObjective(slices, regularizer=kind, check_finite=False)
    return backward(z, lambda z: objective(z, NUM_GLOBAL).total)


def backward(z: torch.Tensor, total: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], object]:
    """Forward and backward of `total`."""

    def run() -> None:
        z.grad = None
        total(z).backward()

    return run


def floor(z: torch.Tensor, slices: int, sort: bool) -> None:
    """Two products, and a sort of what comes out of the first, chunk by chunk (2^23 numbers)."""
    _, batch, dim = z.shape
    directions, gradient = torch.randn(dim, slices, device=z.device), torch.zeros_like(z[0])
    chunk = max(1, (1 << 23) // batch)
    for view in z:
        for start in range(0, slices, chunk):
            columns = directions[:, start : start + chunk].T
            p = columns @ view.T
            if sort:
                torch.sort(p, dim=1)
            gradient.addmm_(p.T, columns)


def sides_of(case: dict[str, int]) -> list[str]:
    """The sides that fit on the card."""
    fits = VIEWS * case["B"] * case["K"] <= PLAIN_LIMIT
    return [side for side in SIDES if fits or side != "plain"]


def measure(cases: list[dict[str, int]]) -> dict:
    """Milliseconds and extra MB of all cases and sides."""
    rows = []
    for case in cases:
        torch.manual_seed(0)
        z = torch.randn(VIEWS, case["B"], case["D"], device=DEVICE, requires_grad=True)
        sides = {side: measured(build(side, case, z), warm=5, repeats=15) for side in sides_of(case)}
        rows.append({"case": case, "sides": sides})
    return {"card": card(), "rows": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_measure(parser)
    print(json.dumps(measure(*parser.parse_args().measure)))
