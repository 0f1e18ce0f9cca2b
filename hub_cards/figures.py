# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a card: found in the run folder, copied next to the card."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple


# Name of a picture -> (places in the run folder, what it shows). All are optional.
PICTURES = {
    "curves.png": (
        ("curves.png",),
        "Loss, terms, effective rank and online probes against epochs.",
    ),
    "pca.png": (
        ("pca.png", "figures/pca.png"),
        "First three principal components of the patch features as red, green and blue, beside each image.",
    ),
}


class Picture(NamedTuple):
    """A picture beside the card: its file name and its caption."""

    name: str
    caption: str


def copy_pictures(run: Path, directory: Path) -> list[Picture]:
    """Copies the pictures that `run` has into `directory`, each whole or absent; returns those that are there now."""
    found = []
    for name, (places, caption) in PICTURES.items():
        source = next((run / place for place in places if (run / place).is_file()), None)
        if source is not None:
            part = directory / f".{name}.part"
            shutil.copyfile(source, part)
            os.replace(part, directory / name)
        if (directory / name).is_file():
            found.append(Picture(name, caption))
    return found
