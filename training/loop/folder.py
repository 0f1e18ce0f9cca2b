# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what it holds, who may write into it, and files that are whole or absent.

recipe.yaml   every option          metrics.jsonl, curves.png   what happened      model/         for AutoModel
run.json      what follows from it  summary.json                how it ended       pretraining/   with the projector
checkpoints/  to go on from         skipped.jsonl               unreadable images  before.json    first accuracies
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from .checkpoint import Checkpoints, check_same_run, read_state
from .ranks import everybody, from_main


def open_folder(folder: Path, arguments: Any, checkpoints: Checkpoints, accelerator) -> Path | None:
    """Make the folder ready and return the checkpoint to go on from, or None for a beginning.

    Raises:
        UserError: the folder holds a run that is neither to be continued nor overwritten, or cannot be continued.
    """
    options = arguments.run
    facts = ((folder / "recipe.yaml").exists(), (folder / "model").exists(), checkpoints.latest())
    occupied, finished, newest = from_main(accelerator, facts)  # one disk decides for all ranks
    resumed = newest if options.resume == "auto" else None
    if not all(everybody(accelerator, resumed is None or resumed.is_dir())):
        raise UserError(f"not every process sees {resumed}: output_dir has to lie on a disk that all machines share")
    if resumed is not None:
        for line in check_same_run(read_state(resumed), arguments.as_recipe(), accelerator.num_processes):
            accelerator.print(f"changed on resume: {line}")
    elif occupied and not options.overwrite and (finished or options.resume != "auto"):
        raise UserError(
            f"{folder} holds a run: --resume auto continues one that has checkpoints, --overwrite deletes it, "
            "or choose another output_dir"
        )
    if accelerator.is_main_process:
        if occupied and resumed is None:
            remove_run(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "recipe.yaml", yaml.safe_dump(arguments.as_recipe(), sort_keys=False))
    accelerator.wait_for_everyone()
    return resumed


def remove_run(folder: Path) -> None:
    """Delete what a run wrote; files that are not a run's stay."""
    for name in ("checkpoints", "model", "pretraining", "evaluation"):
        shutil.rmtree(folder / name, ignore_errors=True)
    files = (
        "recipe.yaml", "run.json", "metrics.jsonl", "curves.png", "pca.png", "summary.json", "skipped.jsonl",
        "before.json",
    )  # fmt: skip
    for path in [folder / name for name in files] + list(folder.glob("nonfinite-rank*.jsonl")):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A file that is either whole or absent."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any | None:
    """The content of a JSON file, or None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
