# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""From options to updates: what a run is made of, and the one loop that trains it.

run.py          Run and build_run: images, model, schedule, processes, folder; nothing is written
compiling.py    torch.compile, for the blocks or the whole backbone
packed.py       the tokens of all resolutions through each compiled block at once
views.py        crops from the workers, colored on the device, one batch ahead
step.py         PretrainingStep: backbone, gather, projector, objective; the one module that is prepared
optimizer.py    parameter groups, AdamW, clip, finite check, update
updates.py      prepare, and the generator that yields each update
checkpoint.py   whole-or-absent checkpoints, and going on from them (which is the newest: run_folder.py)
hub_pusher.py   pushes beside a training that never waits for them
"""

from .checkpoint import Checkpoints, RunState, claim_folder, full_model, restore
from .run import Run, build_run
from .step import PretrainingStep, StepOutput
from .updates import Update, prepare, updates
from .views import build_batches


__all__ = [
    "Checkpoints",
    "PretrainingStep",
    "Run",
    "RunState",
    "StepOutput",
    "Update",
    "build_batches",
    "build_run",
    "claim_folder",
    "full_model",
    "prepare",
    "restore",
    "updates",
]
