# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The one gate through which a checkpoint directory is read, whoever wrote it.

    model = load_checkpoint(VISRegViTModel, "out/model")        # a directory
    config = read_config("out/model")                           # its configuration alone

config.json is bounded and checked before anything is built from it; the headers of the weights are compared with a
model on the meta device before memory is taken; the values have to be finite. Whatever is wrong is a ValueError of one
line, and nothing of the directory is ever run.
"""

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from .configuration_visreg import VISRegViTConfig


ModelT = TypeVar("ModelT", bound=PreTrainedModel)
Shape = tuple[int, ...]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DOWNLOADED = ["config.json", "preprocessor_config.json", WEIGHTS, "model-*-of-*.safetensors", INDEX]
# What else a class of ours keeps beside its backbone.
_HEADS = ("projector.", "classifier.")
FLOATS = ("F64", "F32", "F16", "BF16")
_LARGEST_JSON = 16 << 20  # bytes; a config.json has a thousand, the index of a thousand shards a million
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SHOWN = 3  # names in a message


def load_checkpoint(
    kind: type[ModelT],
    directory: str | Path,
    config: VISRegViTConfig | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> ModelT:
    """A model in evaluation mode, every weight of it from a checkpoint directory.

    Args:
        kind: `VISRegViTModel` takes the backbone out of a checkpoint of any of our classes.
        directory: with config.json and model.safetensors, in shards or not.
        config: in the place of the directory's, which its weights have to fit.
        dtype: of the model; None keeps that of the weights.

    Raises:
        ValueError: what is wrong with the configuration or the weights, in one line.
    """
    directory = Path(directory)
    config = config or read_config(directory)
    renamed = check_weights(kind, config, directory)
    check_room(directory, renamed, dtype)
    with torch.device("meta"):
        model = kind(config)
    weights = {}
    for path in weight_files(directory):
        with safe_open(path, "pt") as file:
            for name in renamed.keys() & set(file.keys()):
                tensor = file.get_tensor(name)
                # A copy: what lies in the file's pages would change, or be gone, with the file.
                floating = dtype if tensor.is_floating_point() else None
                weights[renamed[name]] = tensor.to(floating or tensor.dtype, copy=True)
    model.load_state_dict(weights, assign=True)
    for name, table in list(model.named_buffers()):
        if table.is_meta:  # made of the configuration, and held by no checkpoint
            module, _, name = name.rpartition(".")
            owner = model.get_submodule(module)
            owner.register_buffer(name, torch.empty_like(table, device="cpu"), persistent=False)
            model._init_weights(owner)
    check_finite(weights, str(directory))
    return model.eval()


def read_config(directory: str | Path) -> VISRegViTConfig:
    """The configuration of a checkpoint directory: the fields of `VISRegViTConfig` and the labels, nothing else.

    Raises:
        ValueError: it is not there, not one of a VISReg ViT, or a field has a type or a size that cannot be.
    """
    path = Path(directory) / "config.json"
    content = read_config_object(path)
    if content.get("model_type") != VISRegViTConfig.model_type:
        raise ValueError(f"{path} is that of a {str(content.get('model_type'))[:40]!r} model, not of a VISReg ViT.")
    own = {name for name in VISRegViTConfig.__annotations__ if not name.startswith("_")}
    own |= {"out_features", "out_indices"}
    try:
        config = VISRegViTConfig(**{name: content[name] for name in own & content.keys()})
        if labels := content.get("id2label"):
            config.id2label = {int(number): str(label) for number, label in labels.items()}
            config.label2id = {label: number for number, label in config.id2label.items()}
    except (ValueError, TypeError, AttributeError, LookupError, StrictDataclassError) as error:
        raise ValueError(f"{path}: {_one_line(error)}") from error
    for name in ("hidden_act", "projector_act"):
        if (activation := getattr(config, name)) not in ACT2FN:
            raise ValueError(f"{path}: {name} {activation[:40]!r} is no activation that transformers knows.")
    return config


def read_config_object(path: Path) -> dict[str, Any]:
    """The content of a config.json of any model family, without what would make transformers fetch and run code.

    Raises:
        ValueError: it is not there, no JSON object, or names code that lies elsewhere.
    """
    content = _read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, not a {type(content).__name__}.")
    for key, value in content.items():
        # A name with a slash is a repository on the Hub, whose kernels would be downloaded and run.
        if key.strip("_").startswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
            raise ValueError(f"{path}: {key} names code on the Hub ({str(value)[:60]}), which is not run.")
    return content


def local_directory(name: str | Path) -> Path:
    """A directory as it is, or what is read of a repository on the Hub, downloaded.

    Raises:
        OSError, ValueError: there is neither, or the Hub cannot be reached.
    """
    if Path(name).exists() or not HUB_ID.fullmatch(str(name)):
        return Path(name)
    try:
        return Path(snapshot_download(str(name), allow_patterns=_DOWNLOADED))
    except (HfHubHTTPError, OSError) as error:
        raise OSError(f"there is no directory {name}, and the Hub does not serve it: {_one_line(error)}") from error


def check_weights(kind: type[PreTrainedModel], config: VISRegViTConfig, directory: str | Path) -> dict[str, str]:
    """Compare the headers of the weights with what `kind` needs; of the weights themselves nothing is read.

    Returns:
        For each stored tensor that `kind` takes, its name in the model.

    Raises:
        ValueError: tensors are missing, unexpected, of another shape or not of floating point.
    """
    stored = stored_tensors(directory)
    with torch.device("meta"):
        wanted = dict(kind(config).state_dict())
    renamed = _renamed(stored, whole=any(name.startswith("vit.") for name in wanted))
    problems = []
    if missing := sorted(wanted.keys() - set(renamed.values())):
        problems.append(f"missing {_listed(missing)}")
    if extra := sorted(name for name, ours in renamed.items() if ours not in wanted):
        problems.append(f"unexpected {_listed(extra)}")
    both = {name: wanted[ours] for name, ours in sorted(renamed.items()) if ours in wanted}
    if misshapen := [
        f"{name} {stored[name][0]} instead of {tuple(tensor.shape)}"
        for name, tensor in both.items()
        if stored[name][0] != tuple(tensor.shape)
    ]:
        problems.append(f"misshapen {_listed(misshapen)}")
    floating = [name for name, tensor in both.items() if tensor.is_floating_point()]
    if others := [f"{name} ({stored[name][1]})" for name in floating if stored[name][1] not in FLOATS]:
        problems.append(f"not of floating point {_listed(others)}")
    if problems:
        raise ValueError(f"the weights in {directory} do not fit its configuration: {'; '.join(problems)}.")
    return renamed


def check_room(directory: Path, names: Iterable[str], dtype: torch.dtype | None) -> None:
    """Raises ValueError where weights are larger than this machine's memory: a file of them may be all holes."""
    memory, stored = host_memory(), stored_tensors(directory)
    width = dtype.itemsize if dtype is not None else 2
    need = sum(math.prod(stored[name][0]) for name in names) * width
    if memory is not None and need > memory:
        raise ValueError(
            f"the weights in {directory} take {need / 2**30:,.1f} GiB, and this machine has {memory / 2**30:,.1f}."
        )


def host_memory() -> int | None:
    """Bytes of memory of this machine, or of the container where it has less; None where nobody knows (Windows)."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    for path in _CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # no container; "max"
            found.append(int(Path(path).read_text()))
    return min(found)


def stored_tensors(directory: str | Path) -> dict[str, tuple[Shape, str]]:
    """Shape and type (as safetensors calls it) of each tensor of a checkpoint directory, from the headers.

    Raises:
        ValueError: there are no safetensors weights, or a file is cut, empty or something else.
    """
    directory = Path(directory)
    found: dict[str, tuple[Shape, str]] = {}
    for path in weight_files(directory):
        found |= read_header(path)
    return found


def weight_files(directory: Path) -> list[Path]:
    """The files of weights that are read: model.safetensors, or those that its index names.

    Raises:
        ValueError: there are none, or the index names a file outside the directory.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / INDEX).is_file():
        raise ValueError(f"{directory} has no {WEIGHTS}: weights are read in this form only.")
    index = _read_json(directory / INDEX)
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise ValueError(f"{directory / INDEX} has no weight_map of file names.")
    names = sorted(set(weights.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or not (directory / name).is_file():
            raise ValueError(f"{directory / INDEX} names {name[:80]!r}, which is no file of weights beside it.")
    return [directory / name for name in names]


def read_header(path: Path) -> dict[str, tuple[Shape, str]]:
    """Shape and type of each tensor of one file.

    Raises:
        ValueError: it is no whole safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - the file is no dict
            return {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in parts.items()}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # the last of what cannot be mapped
        raise ValueError(f"{path} cannot be read: {_one_line(error)}") from error


def check_finite(weights: Mapping[str, torch.Tensor], name: str) -> None:
    """Raises ValueError that names the weights that are not finite: what follows from them means nothing."""
    if bad := [key for key, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise ValueError(f"{name} holds weights that are not finite: {_listed(sorted(bad))}.")


def _renamed(stored: Mapping[str, Any], whole: bool) -> dict[str, str]:
    """Stored name -> name in a model with heads (`whole`) or of the backbone alone, which leaves heads out."""
    if whole or not any(name.startswith("vit.") for name in stored):
        return {name: name for name in stored}
    return {name: name.removeprefix("vit.") for name in stored if not name.startswith(_HEADS)}


def _read_json(path: Path) -> Any:
    """The content of a JSON file of bounded size and depth; a device or a pipe is none."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_JSON:
                raise ValueError(f"it is no regular file of at most {_LARGEST_JSON >> 20} MiB")
            return json.loads(file.read().decode("utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ValueError(f"{path.parent} is no checkpoint directory: it has no {path.name}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {_one_line(error)}") from error


def _refuse_constant(name: str) -> None:
    """NaN and Infinity are no JSON, and what is built of them fails anywhere."""
    raise ValueError(f"{name} is no number")


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe that nobody writes into at once; without the flag that waits without end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _listed(names: list[str]) -> str:
    rest = f" ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(name[:120] for name in names[:_SHOWN]) + rest


def _one_line(error: BaseException) -> str:
    """What an error says, on one line of bounded length."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
