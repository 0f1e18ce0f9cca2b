# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a GPU does with this package, beside peers, in one command of some minutes:

    python -m benchmarks.gpu --photos FOLDER --output benchmarks/figures [--whole_model] [--small]

    __main__.py   the command: its parts one after the other, gpu.json, gpu.png and tables
    waves.py      processes that compile together and are timed one at a time
    timing.py     milliseconds of device, wall and host, launches, the measured peak
    losses.py     the objective beside lightly's, plain autograd and the arithmetic floor
    steps.py      whole steps of ViT-S/16, B/16 and L/14 beside timm + lightly with the same views
    coloring.py   the color augmentation of a batch
    pretrain.py   `visreg pretrain` itself on photos, read from its metrics.jsonl
    features.py   feature extraction in bf16 beside timm
    report.py     tables and the figure

`--small` runs every part at toy sizes on a CPU too, to see that they work; its numbers mean nothing.
"""
