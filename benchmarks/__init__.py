# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Measures against peers, side by side in one run, from the root of the repository: `python -m benchmarks.objective`.

    objective.py      time and memory of the objective: ours, lightly's, plain.py's, and the arithmetic floor
    gpu/              all of it on a GPU: objective, colors, steps, features, `visreg pretrain`
    step.py           images a second and memory of whole steps; lightly_loop.py is the peer's loop
    versions.py       objective and steps on a CPU beside those of another checkout
    adapt.py          a pretrained backbone on other images: as it is, adapted, by adapters, from scratch
    resolution.py     segmentation before and after a run goes on at twice the resolution
    resnet.py         ResNet-18 on CIFAR-10 beside lightly's loop with the same network
    quality.py        accuracy of the features after the same steps
    imagenette.py     accuracy on Imagenette against minutes of training
    micro_batches.py  exact micro-batches against the undivided batch
    data.py           images a second that one core prepares
    packing.py        the same of a data set that was packed
    evaluation.py     all learning rates of a linear classifier as one product
    measuring.py      a fresh process a side; peak memory

RESULTS.md holds what was measured, with the machine, and figures/ its figures.
"""
