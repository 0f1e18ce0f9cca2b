# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg export`: the backbone as ONNX or as a program of torch.export, for any batch and size."""

import sys
from pathlib import Path

from ..errors import setting_up
from ..parser import OneLineParser
from ..run_folder import model_directory


def main(argv: list[str]) -> None:
    """One file, and how far it is from torch."""
    parser = OneLineParser("export", __doc__)
    parser.add_argument("--model", required=True, help="folder of a run, checkpoint directory, or Hub id")
    parser.add_argument("--output", type=Path, required=True, help="file to write: .onnx, or .pt2 for torch.export")
    given = parser.parse_args(argv)
    with setting_up():
        from visreg_hub_cards.export import export_checkpoint, heads_of

        difference = export_checkpoint(model_directory(given.model), given.output)
        heads = heads_of(model_directory(given.model))
    if heads:
        print(f"left out: the {' and the '.join(heads)} of this checkpoint; the file gives features", file=sys.stderr)
    print(f"wrote {given.output}; largest difference from torch {difference:.1e}")
