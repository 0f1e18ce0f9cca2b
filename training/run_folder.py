# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: every name in it, files that are whole or absent, the newest checkpoint, the model's folder.

    recipe.yaml   every option           metrics.jsonl, curves.png   what happened      model/        for AutoModel
    run.json      what follows from it   summary.json                how it ended       pretraining/  and projector
    checkpoints/  to go on from          skipped.jsonl               unreadable images  before.json   first accuracies
    evaluation/   results of `visreg evaluate`                       pca.png            what the patches see
    adapter/      of --lora_rank, for PEFT
    images.json   names and sizes of the images' files, to compare them on a resume

Of the floor only, so that the loop, the evaluation and the model cards all read a run through it.
"""

import errno
import fnmatch
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .bounded import LARGEST_LOG, LARGEST_TEXT, parse_json, parse_yaml, read_text
from .errors import one_line
from .locks import Lock, remove_leftovers


Json = dict[str, Any]  # a JSON object, of whatever content

CHECKPOINT = "step-"  # checkpoints/step-00001200
STATE = "state.json"  # the last file of a checkpoint; a folder without it is none
# What a checkpoint directory holds, beside the modeling files.
MODEL_FILES = (
    "README.md", "config.json", "preprocessor_config.json", "model.safetensors", "model-*-of-*.safetensors",
    "model.safetensors.index.json", "curves.png", "pca.png",
)  # fmt: skip
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")  # names that PEFT reads
CODE_FILES = (
    "configuration_visreg.py", "modeling_visreg.py", "image_processing_visreg.py", "decoding_visreg.py",
)  # fmt: skip
# What a checkpoint holds; its weights and configuration as a checkpoint directory does, without card and pictures.
CHECKPOINT_FILES = (
    STATE, "optimizer.pt", "probe.pt", "unmerged.safetensors", "config.json", "preprocessor_config.json",
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", *CODE_FILES,
)  # fmt: skip
_PART = re.compile(r"\..*\.[0-9a-f]{16}\.part(\..*)?")  # of `atomic_file`
_CHECKPOINT_NAME = re.compile(r"step-(\d{8,12})")
_REPLACED = re.compile(r"\.(step-\d{8,12})\.[0-9a-f]{8}\.old")  # of `atomic_directory`, between its two renames
_LOCK_PATIENCE = 10.0  # seconds that a start waits for the run before it to be gone: a job that is requeued overlaps


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
        self.images = self.path / "images.json"
        self.model = self.path / "model"
        self.pretraining = self.path / "pretraining"
        self.checkpoints = self.path / "checkpoints"
        self.adapter = self.path / "adapter"
        self.evaluation = self.path / "evaluation"
        self.pushing = self.path / ".pushing"  # what a push under way sends
        self.lock = Lock(self.path / ".lock")

    def __str__(self) -> str:
        return str(self.path)

    def nonfinite(self, rank: int) -> Path:
        """Where a rank lists the images of updates that were not finite."""
        return self.path / f"nonfinite-rank{rank}.jsonl"

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint after `step` updates."""
        return self.checkpoints / f"{CHECKPOINT}{step:08d}"

    def all_checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first: folders of exactly the name that a run gives them, with their state.

        What a kill left unfinished, and what a user keeps beside them (`step-00000001.mine`), has another name.
        """
        found = {path: _CHECKPOINT_NAME.fullmatch(path.name) for path in self.checkpoints.glob(f"{CHECKPOINT}*")}
        whole = [(int(match[1]), path) for path, match in found.items() if match and (path / STATE).is_file()]
        return [path for _step, path in sorted(whole)]

    def newest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint, or None."""
        found = self.all_checkpoints()
        return found[-1] if found else None

    def finished(self) -> bool:
        """Whether the run wrote its model."""
        return (self.model / "config.json").is_file()

    def files(self) -> list[Path]:
        """The single files that a run writes."""
        named = [self.recipe, self.record, self.metrics, self.curves, self.patches]
        named += [self.summary, self.skipped, self.before, self.images]
        return [*named, *self.path.glob("nonfinite-rank*.jsonl")]

    def folders(self) -> list[Path]:
        """The folders that a run writes into."""
        return [self.checkpoints, self.model, self.pretraining, self.adapter, self.evaluation]

    def is_run(self) -> bool:
        """Whether a run wrote into this folder: its record or its recipe is there, and no project's."""
        for path, key in ((self.record, "plan"), (self.recipe, "output_dir")):
            try:
                if key in read_object(path):
                    return True
            except ValueError:
                continue
        return False

    def foreign(self) -> list[Path]:
        """What lies under a run's names and no run wrote, so that no run may replace or delete it."""
        if not self.is_run():
            return [path for path in (*self.files(), *self.folders()) if path.exists()]
        found = []
        expected = {self.model: MODEL_FILES, self.pretraining: MODEL_FILES, self.adapter: ADAPTER_FILES}
        for folder, names in expected.items():
            found += _unknown(folder, (*names, *CODE_FILES))
        return found

    def remove_leftovers(self) -> None:
        """Delete what a run, or a push of it, left here when it was killed. The lock has to be held."""
        remove_leftovers([self.pushing, *self.path.glob(".push-*")])
        for part in self.checkpoints.glob(f".{CHECKPOINT}*"):
            replaced = _REPLACED.fullmatch(part.name)
            if replaced and not (before := self.checkpoints / replaced[1]).exists():
                part.rename(before)
            else:
                shutil.rmtree(part, ignore_errors=True)
        for path in (*_entries(self.path), *_entries(self.evaluation)):
            if _PART.fullmatch(path.name) and path.is_file():
                path.unlink()

    def refuse_links(self) -> None:
        """Raises ValueError for a link under a name of the run: a folder that was received could read, or overwrite,
        any file of this machine through it.
        """
        inside = [path for folder in self.folders() for path in _entries(folder)]
        for path in (*self.files(), *self.folders(), self.pushing, *inside):
            if path.is_symlink():
                raise ValueError(f"{path} is a link, and a run folder holds none: put the whole folder where it leads")

    def take_lock(self) -> None:
        """Be the only run in this folder, until `lock.release()` or the end of the process.

        Raises:
            ValueError: another run is under way in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.lock.take(_LOCK_PATIENCE):
            raise ValueError(f"another run is under way in {self}: wait for its end, or choose another output_dir")

    def remove_run(self) -> list[Path]:
        """Delete what a run wrote; files that are not a run's stay, beside the checkpoints and in them.

        Returns:
            The folders of checkpoints that stay, with what a person put there.

        Raises:
            OSError: something cannot be deleted.
            ValueError: something in the way was written by no run; nothing was deleted.
        """
        if foreign := self.foreign():
            raise ValueError(f"{foreign[0]} was not written by a run, so it is not deleted: move it away first")
        kept = []
        for path in _entries(self.checkpoints):
            if path.is_dir() and path.name.startswith(f".{CHECKPOINT}"):
                shutil.rmtree(path)
            elif path.is_dir() and _CHECKPOINT_NAME.fullmatch(path.name) and remove_checkpoint(path):
                kept.append(path)
        for folder in (self.model, self.pretraining, self.adapter):
            if folder.exists():
                shutil.rmtree(folder)
        for path in self.evaluation.glob("*.json"):
            if _is_result(path):
                path.unlink()
        for file in self.files():
            file.unlink(missing_ok=True)
        return kept


def foreign_to_checkpoint(path: Path) -> list[Path]:
    """What a person put into the folder of a checkpoint."""
    return _unknown(path, CHECKPOINT_FILES)


def remove_checkpoint(path: Path) -> list[Path]:
    """Delete what a run wrote into the folder of a checkpoint, and the folder if nothing else is in it.

    Returns:
        What a person put there, which stays.
    """
    foreign = foreign_to_checkpoint(path)
    if not foreign:
        # Renamed first: a kill in the middle of the removal leaves no half checkpoint under a good name.
        doomed = path.with_name(f".{path.name}.old")
        path.rename(doomed)
        shutil.rmtree(doomed)
        return []
    # state.json first: without it the folder is no checkpoint, if a kill comes in between.
    for own in sorted(set(_entries(path)) - set(foreign), key=lambda file: file.name != STATE):
        shutil.rmtree(own) if own.is_dir() and not own.is_symlink() else own.unlink()
    return foreign


def kept_line(path: Path) -> str:
    """Says that the folder of a checkpoint stays, and why."""
    return f"kept {path}: no run wrote what is in it ({', '.join(file.name for file in _entries(path)[:3])})"


def _is_result(path: Path) -> bool:
    """Whether an evaluation of this package wrote the file."""
    try:
        return {"protocol", "metric", "value"} <= read_object(path).keys()
    except (ValueError, OSError):
        return False


def _unknown(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """What lies in a folder under none of these names, of which `*` stands for any part."""
    return [path for path in _entries(folder) if not any(fnmatch.fnmatch(path.name, one) for one in names)]


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, in order; nothing if it is none."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def model_directory(name: str | os.PathLike) -> str:
    """The checkpoint directory that a name stands for: a run folder stands for its model/, all else for itself."""
    folder = RunFolder(name)
    if folder.finished() and not (folder.path / "config.json").is_file():
        return str(folder.model)
    return os.fspath(name)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A file to fill, which takes the place of `path` when the block ends and vanishes if the block raises.

    It is made under a name that nobody can know before, and a link in its place is not followed. The name keeps the
    suffix, so that what chooses a format by it still does. Who may read the file follows the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.part{path.suffix}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    os.close(handle)
    try:
        yield part
        if stat.S_IMODE(part.stat().st_mode) != mode:  # safetensors makes a new file, for its owner only
            part.chmod(mode)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def appended(path: Path) -> Iterator[Any]:
    """A text file to add lines to; a link in its place is not followed.

    Raises:
        OSError: it is a link, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
        yield file


def check_writable(path: Path) -> None:
    """Raises OSError, before the work, where a file or folder at `path` could not be written after it."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    if place.is_dir() and place == path.absolute() and path.suffix:
        raise IsADirectoryError(errno.EISDIR, "it is a folder, and a file is to be written there", str(path))
    if not place.is_dir() and place != path.absolute():
        raise NotADirectoryError(errno.ENOTDIR, "it is no folder, so nothing can be written below it", str(place))
    writable = place if place.is_dir() else place.parent
    if not os.access(writable, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "nothing can be written into this folder", str(writable))


def write_text(path: Path, text: str) -> None:
    """A text file that is either whole or absent."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """A JSON file that is either whole or absent."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any | None:
    """The content of a JSON file, or None if there is none.

    Raises:
        ValueError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error


def read_object(path: Path, largest: int = LARGEST_TEXT) -> dict[str, Any]:
    """A JSON or YAML file that holds an object; empty if it is not there.

    Args:
        path: of the file.
        largest: bytes that it may have.

    Raises:
        ValueError: it holds something else, or cannot be read.
    """
    if not path.is_file():
        return {}
    parse: Callable[[str], Any] = parse_yaml if path.suffix in (".yaml", ".yml") else parse_json
    try:
        content = parse(read_text(path, largest))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, not a {type(content).__name__}.")
    return content


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; a line cut by a kill is left out, and what follows it."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        for line in read_text(path, LARGEST_LOG).splitlines():
            try:
                row = parse_json(line)
            except ValueError:
                break
            if not isinstance(row, dict):
                break
            rows.append(row)
    return rows
