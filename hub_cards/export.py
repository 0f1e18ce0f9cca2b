# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A backbone as an ONNX file or as a program of torch.export: any batch, any size that the patch divides.

    pixel_values (B, C, H, W)  ->  last_hidden_state (B, 1 + N, d), pooler_output (B, d)

B images, N patches, d width. H and W are at least two patches. A file appears only after it gave what torch gives.
"""

import importlib.util
import io
import math
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modeling_visreg import VISRegViTModel
from modeling_visreg.loading import load_checkpoint, local_directory, stored_tensors
from visreg_training.compat import check_tracing


TOLERANCE = 1e-4
LARGEST_GRID = 512  # patches on a side; torch.export wants a bound
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ExportedViT(nn.Module):
    """The backbone with plain tensors as outputs, and a position embedding that no size is special to."""

    def __init__(self, model: VISRegViTModel):
        super().__init__()
        self.model = model
        embeddings = model.embeddings
        embeddings.interpolate_pos_encoding = types.MethodType(resampled_positions, embeddings)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model(self.whole_patches(pixel_values))
        return outputs.last_hidden_state, outputs.pooler_output

    def whole_patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """The pixels as they are. A runtime cannot give other sizes this shape; the convolution would cut them off."""
        patch = self.model.config.patch_size
        batch, channels, height, width = pixels.shape
        rows, columns = height // patch, width // patch
        return pixels.reshape(batch, channels, rows, patch, columns, patch).reshape(pixels.shape)


def resampled_positions(embeddings: nn.Module, rows: int, columns: int) -> torch.Tensor:
    """As the model's own, without its shortcut for the native grid: rows and columns may be symbols."""
    positions = embeddings.position_embeddings
    grid = positions[0, 1:].unflatten(0, embeddings.grid_size)
    vertical = cubic_weights(embeddings.grid_size[0], rows, positions.device)
    horizontal = cubic_weights(embeddings.grid_size[1], columns, positions.device)
    grid = torch.einsum("ri,cj,ijd->rcd", vertical, horizontal, grid)
    return torch.cat((positions[:, :1], grid.flatten(0, 1)[None]), dim=1)


def cubic_weights(source: int, target: int, device: torch.device) -> torch.Tensor:
    """Weights (target, source) of antialiased bicubic resampling, written out in operations that ONNX has.

    Equal to what `F.interpolate(mode="bicubic", antialias=True)` does along an axis: its kernel (a = -0.5), widened
    where it shrinks, is zero outside its support, so it needs no window.
    """
    scale = source / torch.sym_float(target)
    centers = (torch.arange(target, device=device, dtype=torch.float32) + 0.5) * scale
    positions = torch.arange(source, device=device, dtype=torch.float32) + 0.5
    distance = ((positions[None] - centers[:, None]) / torch.sym_max(scale, 1.0)).abs()
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
    return weights / weights.sum(1, keepdim=True)


def export_checkpoint(checkpoint: str | Path, output: str | Path) -> float:
    """Writes the backbone of a checkpoint directory or Hub id to a file, and compares it with torch.

    Args:
        checkpoint: of any VISReg ViT class.
        output: `.onnx`, checked with onnxruntime, or `.pt2`, a program of torch.export. Weights over 2 GB go into a
            file `output.data` beside the `.onnx`.

    Returns:
        The largest difference from the model's own features, over three sizes and batches.

    Raises:
        ValueError: the suffix is another, packages are missing, the checkpoint cannot be read, or the difference is
            above 1e-4; nothing was written.
    """
    output = Path(output)
    writers: dict[str, Callable] = {".onnx": write_onnx, ".pt2": write_program}
    if output.suffix not in writers:
        raise ValueError(f"{output.name} must end in .onnx or .pt2.")
    if output.suffix == ".onnx" and (
        missing := [name for name in _ONNX_PACKAGES if not importlib.util.find_spec(name)]
    ):
        raise ValueError(f"ONNX needs {', '.join(missing)}: pip install 'visreg[export]'.")
    check_tracing("visreg export")
    directory = local_directory(checkpoint)
    original, copy = (load_checkpoint(VISRegViTModel, directory) for _ in range(2))
    output.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
        part = Path(folder) / output.name
        run = writers[output.suffix](traced(ExportedViT(copy)), part)
        difference = largest_difference(original, run)
        if not difference <= TOLERANCE:
            raise ValueError(f"the exported model differs from torch by {difference:.1e}; {TOLERANCE:.0e} is allowed.")
        for file in sorted(Path(folder).iterdir(), reverse=True):  # the data file, if any, before what refers to it
            file.replace(output.parent / file.name)
    return difference


def heads_of(checkpoint: str | Path) -> list[str]:
    """What a checkpoint has beside its backbone: "classifier", "projector"."""
    stored = stored_tensors(local_directory(checkpoint))
    return [head for head in ("classifier", "projector") if any(name.startswith(f"{head}.") for name in stored)]


def traced(module: ExportedViT) -> torch.export.ExportedProgram:
    """The program, with symbols for batch, rows and columns."""
    config = module.model.config
    rows, columns = (torch.export.Dim(name, max=LARGEST_GRID) for name in ("rows", "columns"))
    sizes = {0: torch.export.Dim("batch"), 2: config.patch_size * rows, 3: config.patch_size * columns}
    return torch.export.export(module, (example(config, 2, 3, 5),), dynamic_shapes={"pixel_values": sizes})


def write_program(program: torch.export.ExportedProgram, path: Path) -> Callable:
    content = io.BytesIO()  # torch's own writer aborts the process where the disk is full
    torch.export.save(program, content)
    path.write_bytes(content.getbuffer())
    return torch.export.load(path).module()


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> Callable:
    import onnxruntime

    exported = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=["pixel_values"],
        output_names=["last_hidden_state", "pooler_output"],
    )
    name_dimensions(exported.model)
    exported.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: [torch.from_numpy(out) for out in session.run(None, {"pixel_values": pixels.numpy()})]


def name_dimensions(model: Any) -> None:
    """Names in the place of the symbols that tracing made, such as `4*s30`."""
    names = {"pixel_values": {0: "batch", 2: "height", 3: "width"}, "last_hidden_state": {0: "batch", 1: "tokens"}}
    names["pooler_output"] = {0: "batch"}
    for value in (*model.graph.inputs, *model.graph.outputs):
        named = names[value.name]
        value.shape = type(value.shape)([named.get(axis, size) for axis, size in enumerate(value.shape)])


def largest_difference(model: VISRegViTModel, run: Callable) -> float:
    """Of all outputs, for the native size, a smaller and an oblong one."""
    rows, columns = model.config.grid_size
    worst = 0.0
    for batch, height, width in ((1, rows, columns), (2, max(2, rows // 2), max(2, columns // 2)), (3, rows + 2, 2)):
        pixels = example(model.config, batch, height, width)
        expected = model(pixels)
        for ours, theirs in zip(run(pixels), (expected.last_hidden_state, expected.pooler_output), strict=True):
            # Of NaN and a number max() takes either: what is not finite is no match.
            difference = (ours - theirs).abs().max().item()
            worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


def example(config, batch: int, rows: int, columns: int) -> torch.Tensor:
    """Images of noise, the same every time."""
    shape = (batch, config.num_channels, rows * config.patch_size, columns * config.patch_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
