# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One process of several, started by tests/objective/test_distributed.py (FOLDER RANK WORLD); gloo through a file.

It takes its part of the batch that FOLDER/case.pt describes, trains nothing, and writes what it saw.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from visreg_training.objective import VISRegObjective, gather_batch


def gathered(case: dict, rank: int, world: int) -> dict:
    """What gather_batch gives, and the gradient of a loss that differs between ranks."""
    x = case["x"].chunk(world, dim=1)[rank].clone().requires_grad_()
    whole = gather_batch(x)
    ((rank + 1) * whole * case["weights"]).sum().backward()
    return {"whole": whole.detach(), "grad": x.grad}


def trained(case: dict, rank: int, world: int) -> dict:
    """Terms and parameter gradient of a linear layer under DDP."""
    layer = nn.Linear(*case["weight"].shape[::-1], bias=False)
    layer.weight.data.copy_(case["weight"])
    model = DistributedDataParallel(layer) if world > 1 else layer
    x = case["x"].chunk(world, dim=1)[rank]
    terms = VISRegObjective(**case["options"])(model(x), 2, step=3)
    terms.total.backward()
    return {"terms": torch.stack(terms).detach(), "grad": layer.weight.grad}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    case = torch.load(folder / "case.pt")
    results = [{"gather": gathered, "train": trained}[job["job"]](job, rank, world) for job in case]
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
