# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a card: found in the run folder, copied next to the card."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple


# Name of a picture in the run folder -> what it shows. All are optional.
PICTURES = {
    "curves.png": "Loss, its terms, effective rank, accuracy of the online probes, gradient norm and speed.",
    "pca.png": "Images, and the first three principal components of their patch features as red, green and blue: "
    "patches of one colour have similar features, in all of these images.",
}


class Picture(NamedTuple):
    """A picture beside the card: its file name and its caption."""

    name: str
    caption: str


def copy_pictures(run: Path, directory: Path) -> list[Picture]:
    """Copies the pictures that `run` has into `directory`, each whole or absent; returns those that are there now."""
    found = []
    for name, caption in PICTURES.items():
        if (run / name).is_file():
            part = directory / f".{name}.part"
            shutil.copyfile(run / name, part)
            os.replace(part, directory / name)
        if (directory / name).is_file():
            found.append(Picture(name, caption))
    return found
