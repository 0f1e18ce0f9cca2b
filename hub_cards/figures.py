# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The figures of a card: found in the run folder, copied next to the card."""

import shutil
from pathlib import Path
from typing import NamedTuple

from visreg_training.run_folder import RunFolder, atomic_file, read_rows


class Figure(NamedTuple):
    """A figure beside the card: its file name and its caption."""

    name: str
    caption: str


def figures_of(folder: RunFolder) -> dict[Path, str]:
    """Files that a run may have, with what they show."""
    probed = any(name.startswith(("probe_", "held_out_")) for row in read_rows(folder.metrics) for name in row)
    probes = "accuracy of the online probes, " if probed else ""
    return {
        folder.curves: f"Loss, its terms, effective rank, {probes}gradient norm and speed.",
        folder.patches: "Images, and the first three principal components of their patch features as red, green and "
        "blue: patches of one color have similar features, in all of these images.",
    }


def copy_figures(folder: RunFolder, directory: Path) -> list[Figure]:
    """Copies the figures that a run has into `directory`; returns those that are there now."""
    found = []
    for path, caption in figures_of(folder).items():
        target = directory / path.name
        if path.is_file() and not path.is_symlink():
            with atomic_file(target) as part:
                shutil.copyfile(path, part)
        if target.is_file():
            found.append(Figure(path.name, caption))
    return found
