# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: every name in it, files that are whole or absent, the newest checkpoint, the model's folder.

    recipe.yaml   every option           metrics.jsonl, curves.png   what happened      model/        for AutoModel
    run.json      what follows from it   summary.json                how it ended       pretraining/  and projector
    checkpoints/  to go on from          skipped.jsonl               unreadable images  before.json   first accuracies
    evaluation/   results of `visreg evaluate`                       pca.png            what the patches see

Standard library and yaml only, so that the loop, the evaluation and the model cards all read a run through it.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .errors import one_line


Json = dict[str, Any]  # a JSON object, of whatever content

CHECKPOINT = "step-"  # checkpoints/step-00001200


class RunFolder:
    """The files of one run. Nothing is read or made before a method is called.

    Args:
        path: of the folder; it need not be there.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.curves = self.path / "curves.png"
        self.patches = self.path / "pca.png"
        self.summary = self.path / "summary.json"
        self.skipped = self.path / "skipped.jsonl"
        self.before = self.path / "before.json"
        self.model = self.path / "model"
        self.pretraining = self.path / "pretraining"
        self.checkpoints = self.path / "checkpoints"
        self.evaluation = self.path / "evaluation"

    def __str__(self) -> str:
        return str(self.path)

    def nonfinite(self, rank: int) -> Path:
        """Where a rank lists the images of updates that were not finite."""
        return self.path / f"nonfinite-rank{rank}.jsonl"

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint after `step` updates."""
        return self.checkpoints / f"{CHECKPOINT}{step:08d}"

    def all_checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first; what a kill left unfinished has another name."""
        return sorted(path for path in self.checkpoints.glob(f"{CHECKPOINT}*") if not path.suffix)

    def newest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint, or None."""
        found = self.all_checkpoints()
        return found[-1] if found else None

    def finished(self) -> bool:
        """Whether the run wrote its model."""
        return (self.model / "config.json").is_file()

    def remove_run(self) -> None:
        """Delete what a run wrote; files that are not a run's stay."""
        for folder in (self.checkpoints, self.model, self.pretraining, self.evaluation):
            shutil.rmtree(folder, ignore_errors=True)
        files = [self.recipe, self.record, self.metrics, self.curves, self.patches]
        files += [self.summary, self.skipped, self.before, *self.path.glob("nonfinite-rank*.jsonl")]
        for file in files:
            file.unlink(missing_ok=True)


def model_directory(name: str | os.PathLike) -> str:
    """The checkpoint directory that a name stands for: a run folder stands for its model/, all else for itself."""
    folder = RunFolder(name)
    if folder.finished() and not (folder.path / "config.json").is_file():
        return str(folder.model)
    return os.fspath(name)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A file to fill, which takes the place of `path` when the block ends and vanishes if the block raises.

    The name keeps the suffix, so that what chooses a format by it still does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file that is either whole or absent."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """A JSON file that is either whole or absent."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any | None:
    """The content of a JSON file, or None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that holds an object; empty if it is not there.

    Raises:
        ValueError: it holds something else, or cannot be read.
    """
    if not path.is_file():
        return {}
    parse: Callable[[str], Any] = yaml.safe_load if path.suffix in (".yaml", ".yml") else json.loads
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, not a {type(content).__name__}.")
    return content


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; a line cut by a kill is left out, and what follows it."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
