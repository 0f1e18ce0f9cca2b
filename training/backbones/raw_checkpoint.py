# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A backbone of another family with its projector, as runs write it: to go on from, bit for bit.

    config.json         that of the backbone, under `visreg_projector` the sizes of the projector, and under
                        `visreg_absent` the weights of a pooler that the backbone's own checkpoint lacks
    model.safetensors   tensors under the names they have in memory, `backbone.*` and `projector.*`

transformers renames weights when it saves a model, and again when it loads one; nothing does here.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from modeling_visreg.checkpoint import disk_errors
from modeling_visreg.loading import WEIGHTS, check_finite, read_header

from ..run_folder import Json


PROJECTOR, ABSENT = "visreg_projector", "visreg_absent"
BACKBONE_PREFIX, PROJECTOR_PREFIX = "backbone.", "projector."


def write_raw(directory: Path, weights: Mapping[str, torch.Tensor], config: Json, projector: Json) -> None:
    """Both files, into a directory that is there.

    Raises:
        OSError: the disk refuses.
    """
    text = json.dumps(config | {PROJECTOR: projector}, indent=2, default=str)
    (directory / "config.json").write_text(text + "\n", encoding="utf-8")
    with disk_errors(directory):
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(contiguous, directory / WEIGHTS, metadata={"format": "pt"})


def absent_of(config: Json) -> frozenset[str]:
    """The names under `visreg_absent`."""
    listed = config.get(ABSENT)
    return frozenset(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else frozenset()


def load_tensors(module: nn.Module, directory: str | Path, prefix: str = "") -> None:
    """The tensors whose names begin with `prefix`, which is cut, into a module; one on the meta device is compared.

    Raises:
        ValueError: they are not exactly those of the module, or not finite.
    """
    path = Path(directory) / WEIGHTS
    stored = {name: shape for name, (shape, _dtype) in read_header(path).items() if name.startswith(prefix)}
    shapes = {name.removeprefix(prefix): shape for name, shape in stored.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if wrong := sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name)):
        raise ValueError(
            f"{path} does not fit its configuration: {', '.join(wrong[:3])} ({len(wrong)} of its tensors)"
        )
    if any(tensor.is_meta for tensor in module.state_dict().values()):
        return
    with safe_open(path, "pt") as file:
        weights = {name.removeprefix(prefix): file.get_tensor(name).clone() for name in stored}
    check_finite(weights, str(path))
    module.load_state_dict(weights)
