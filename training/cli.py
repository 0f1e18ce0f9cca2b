# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg`: finds the subcommand and gives it the rest of the line. Modules are imported when they are needed."""

import difflib
import importlib
import os
import sys
from importlib.metadata import version

from .errors import UserError, exit_codes


# Subcommand -> (module with `main(argv)`, what it does).
COMMANDS = {
    "pretrain": ("commands.pretrain", "train a ViT on images with the VISReg objective"),
    "plan": ("commands.plan", "memory, time and workers that a recipe will need"),
    "preview": ("commands.preview", "write a contact sheet of a recipe's views"),
    "pack": ("commands.pack", "write a data set as parquet files of smaller images"),
    "evaluate": ("commands.evaluate", "measure a checkpoint on labeled images"),
    "features": ("commands.features", "write the features of a data set"),
    "search": ("commands.search", "find the images that look most like a photo"),
    "visualize": ("commands.visualize", "PCA and attention maps, neighbors, confusion, a map of a set"),
    "analyze": ("commands.analyze", "the paper's analyses: figures, numbers, and what holds of its claims"),
    "card": ("commands.card", "write or check the model card of a run"),
    "push": ("commands.push", "upload a run to the Hub in one commit"),
    "export": ("commands.export", "ONNX or torch.export of a checkpoint"),
    "convert": ("commands.convert", "released or timm weights to a checkpoint directory, and back"),
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose}" for name, (_module, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: visreg COMMAND [options]; `visreg COMMAND --help` lists the options",
            "",
            *lines,
            "",
            "visreg --version prints the version",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    """The console script. Exit codes are those of errors.py."""
    # On a CPU, torch's threads wait for one another by spinning, for milliseconds, on cores that the loader's workers
    # could use: a step on photos takes 1.15 times as long. Read when torch is loaded, here or in a child.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return
    if argv[0] == "--version":
        print(f"visreg {version('visreg')}")
        return
    name, rest = argv[0], argv[1:]
    with exit_codes("visreg"):
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "`visreg --help` lists them"
            raise UserError(f"there is no command '{name}': {hint}")
    with exit_codes(f"visreg {name}"):
        importlib.import_module(f".{COMMANDS[name][0]}", __package__).main(rest)


if __name__ == "__main__":
    main()
