# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoint directories that the Auto classes read, with or without this package installed.

A directory holds config.json, model.safetensors, the modeling files (remote code) and preprocessor_config.json.
It is written under a temporary name next to its place, then renamed: it is complete or absent, never half.
"""

import errno
import glob
import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

from .configuration_visreg import VISRegViTConfig
from .image_processing_visreg import VISRegViTImageProcessor


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# The evaluation protocol tests at 224 of 256 pixels (method, section 5); other native sizes keep the proportion.
RESIZE_RATIO = 256 / 224


def image_processor_for(config: VISRegViTConfig, **overrides: Any) -> VISRegViTImageProcessor:
    """Image processor of the evaluation protocol for the native size of a model.

    Resizes the shortest edge to 256 / 224 of the native size (of its longer side, where it is not square) with bicubic
    resampling, crops the center to the native size, normalizes with the ImageNet mean and standard deviation.

    Args:
        config: the model's configuration.
        **overrides: arguments of `VISRegViTImageProcessor` that replace these, such as `image_mean` and `image_std`.

    Raises:
        ValueError: the model does not take 3 channels and `image_mean`, `image_std` are not given.
    """
    height, width = config.native_size
    if config.num_channels != 3 and not {"image_mean", "image_std"} <= overrides.keys():
        raise ValueError(
            f"ImageNet statistics are for 3 channels; pass image_mean and image_std for {config.num_channels}."
        )
    settings: dict[str, Any] = {
        "size": {"shortest_edge": round(max(height, width) * RESIZE_RATIO)},
        "crop_size": {"height": height, "width": width},
        "resample": PILImageResampling.BICUBIC,
        "image_mean": list(IMAGENET_DEFAULT_MEAN),
        "image_std": list(IMAGENET_DEFAULT_STD),
        "do_convert_rgb": config.num_channels == 3,
    }
    return VISRegViTImageProcessor(**settings | overrides)


def save_checkpoint(
    model: PreTrainedModel,
    directory: str | Path,
    image_processor: BaseImageProcessor | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model as a directory that `AutoModel` and `AutoImageProcessor` read, remote code included.

    Args:
        model: any VISReg ViT class, unwrapped.
        directory: where to; it appears at once, complete.
        image_processor: what the model's images went through; `image_processor_for(model.config)` by default.
        overwrite: whether to replace a directory that is there and not empty.

    Returns:
        The directory.

    Raises:
        ValueError: the directory is not empty and `overwrite` is False.
    """
    with atomic_directory(directory, overwrite) as staging:
        write_checkpoint(model, staging, image_processor)
    return Path(directory)


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """The first 16 digits of a sha256 over names, types, shapes and bytes: which weights a result was measured on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def write_checkpoint(
    model: PreTrainedModel, directory: Path, image_processor: BaseImageProcessor | None = None
) -> None:
    """The files of `save_checkpoint`, straight into a directory.

    Raises:
        OSError: the disk refuses.
    """
    with disk_errors(directory):
        model.save_pretrained(directory)
    (image_processor or image_processor_for(cast(VISRegViTConfig, model.config))).save_pretrained(directory)


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """What safetensors and torch raise where a disk refuses to be written becomes the OSError that it is.

    Raises:
        OSError: with the number of the error, where they say it.
    """
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        text = " ".join(str(error).split())
        # Each as it says it today, and as the oldest that we take does.
        number = re.search(r"os error (\d+)|Os \{ code: (\d+)", text)
        unopened = re.search(r"open file failed with strerror: (.+)|File .+ cannot be opened", text)
        if number is None and not unopened and "PytorchStreamWriter" not in text and "unexpected pos" not in text:
            raise
        code = int(number[1] or number[2]) if number else errno.EACCES if unopened else errno.EIO
        raise OSError(code, f"{os.strerror(code)} ({text[:200]})", str(path)) from error


@contextmanager
def atomic_directory(directory: str | Path, overwrite: bool = False, durable: bool = False) -> Iterator[Path]:
    """Gives a staging directory that takes the place of `directory` when the block ends, and vanishes if it raises.

    A process that is killed inside leaves it behind, next to `directory`, under a name that begins with a dot; the
    next one that fills a staging directory for the same place removes it.

    Args:
        directory: where to; its parents are made.
        overwrite: whether to replace a directory that is there and not empty.
        durable: whether to wait until everything is on the disk, so that a power cut leaves no half directory either.

    Raises:
        ValueError: `directory` is a file, or it is not empty and `overwrite` is False.
    """
    directory = Path(directory).absolute()
    remove_leftovers(directory)
    if directory.is_file():
        raise ValueError(f"{directory} is a file; a checkpoint is a directory.")
    if not overwrite and directory.exists() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty; choose another directory or ask to overwrite it.")
    unique = uuid.uuid4().hex[:8]
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = directory.with_name(f".{directory.name}.{unique}.new")
    staging.mkdir()
    lock = _lock(staging)
    try:
        yield staging
        follow_umask(staging, staging.rglob("*"))
        if durable:
            _flush(staging, *staging.rglob("*"))
        _replace(directory, staging, directory.with_name(f".{directory.name}.{unique}.old"))
        if durable:
            _flush(directory.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_leftovers(directory: str | Path) -> None:
    """Remove what processes that were killed left of `atomic_directory` for this place; what is being filled stays.

    Where the kill fell between the two renames, the directory that was there before has its place again.
    """
    directory = Path(directory).absolute()
    if fcntl is None or not directory.parent.is_dir():
        return
    ours = re.compile(re.escape(f".{directory.name}.") + r"[0-9a-f]{8}\.(new|old)")
    for path in sorted(directory.parent.glob(f".{glob.escape(directory.name)}.*")):
        match = ours.fullmatch(path.name)
        if not match or path.is_symlink() or not path.is_dir() or (lock := _lock(path)) is None:
            continue
        if match[1] == "old" and not directory.exists():
            path.rename(directory)
        else:
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(directory: Path) -> int | None:
    """A lock on a directory, held until it is closed or the process ends; None if another process holds it."""
    if fcntl is None:
        return None
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a disk without locks
        os.close(handle)
        return None
    return handle


def _replace(directory: Path, staging: Path, aside: Path) -> None:
    if not directory.exists():
        staging.rename(directory)
        return
    directory.rename(aside)
    aside_lock = _lock(aside)  # nobody is to take it for a leftover
    try:
        staging.rename(directory)
    except OSError:
        aside.rename(directory)
        raise
    finally:
        if aside_lock is not None:
            os.close(aside_lock)
    shutil.rmtree(aside, ignore_errors=True)  # a leftover by now: of no consequence


def follow_umask(directory: Path, paths: Iterable[Path]) -> None:
    """Gives files the permissions of any new one in `directory`: safetensors makes its own for their owner only."""
    probe = directory / f".{uuid.uuid4().hex}"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in list(paths):
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def _flush(*paths: Path) -> None:
    """Files and directories to the disk; of a directory, which names it holds."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
