# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What may go to the Hub: files with the names that this package writes, each a regular file where it should be.

model/ may hold anything (a token, a key, notes, an optimizer), and a folder that was received may hold links to any
file of this machine. Whatever is not on the list stays here and is named.
"""

import fnmatch
import stat
from pathlib import Path
from typing import Any

from visreg_training.run_folder import (
    ADAPTER_FILES,
    CODE_FILES,
    MODEL_FILES,
    RunFolder,
    model_directory,
    read_object,
    write_json,
)

from .license import is_hub_id


CARD = "README.md"
MODEL = MODEL_FILES
CHECKPOINT = (*MODEL, "unmerged.safetensors", "optimizer.pt", "probe.pt", "state.json")
ADAPTER = ADAPTER_FILES
# Remote code is sent as this package has it: what lies in the folder could be anybody's.
CODE = CODE_FILES


def sendable(folder: Path, names: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """The files of a folder that are on a list of names, and everything else in it.

    Raises:
        ValueError: the folder is a link.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link: name the folder that it leads to.")
    kept, left_out = [], []
    for path in sorted(folder.iterdir()):
        listed = any(fnmatch.fnmatchcase(path.name, name) for name in names)
        if listed and is_regular(path):
            kept.append(path)
        elif path.name not in CODE:
            left_out.append(path)
    return kept, left_out


def is_regular(path: Path) -> bool:
    """Whether this is a file by itself: no link, no pipe, no device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def refuse_linked_records(folder: RunFolder) -> None:
    """Raises ValueError for a link in the place of what a card is made of: its content would be shown or sent."""
    model = Path(model_directory(folder.path))
    records = [*folder.files(), *folder.evaluation.glob("*.json"), model / CARD, model / "config.json"]
    for path in (*records, *folder.folders()):
        if path.is_symlink():
            raise ValueError(f"{path} is a link, which is not followed: put the file itself there.")


def write_code(directory: Path) -> None:
    """This package's own modeling files into a checkpoint directory, and a config.json that names no other.

    A model of another family needs no code: only its config.json is cleaned.

    Raises:
        ValueError: config.json cannot be read.
    """
    import modeling_visreg
    from modeling_visreg.configuration_visreg import AUTO_MAP, custom_pipelines
    from modeling_visreg.loading import read_config, read_config_object

    config = directory / "config.json"
    content: dict[str, Any] = {
        key: value for key, value in read_config_object(config).items() if not _is_dangerous(key)
    }
    if is_other_family(content):
        if content != read_object(config):
            config.unlink()
            write_json(config, content)
        return
    read_config(directory)
    code = {"auto_map": AUTO_MAP, "custom_pipelines": custom_pipelines(content.get("architectures"))}
    if content | code != read_object(config):
        config.unlink()  # a snapshot may share it with the run
        write_json(config, content | code)
    for name in CODE:
        source = Path(modeling_visreg.__file__).parent / name
        (directory / name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8", newline="\n")


def clean_adapter(directory: Path) -> None:
    """Takes out of an adapter's configuration what names code, or weights that are not on the Hub.

    Raises:
        ValueError: it cannot be read.
    """
    path = directory / ADAPTER[0]
    content = {key: value for key, value in read_object(path).items() if key != "auto_mapping"}
    base = content.get("base_model_name_or_path")
    path.unlink(missing_ok=True)
    write_json(path, content | {"base_model_name_or_path": base if is_hub_id(str(base)) else None})


def is_other_family(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a network of transformers or timm, which they load without code of ours."""
    return config.get("model_type", "timm" if "architecture" in config else "visreg_vit") != "visreg_vit"


def _is_dangerous(key: str) -> bool:
    """Whether a key of config.json names code, or a path of this machine."""
    return key in ("auto_map", "quantization_config", "_name_or_path", "custom_pipelines") or "implementation" in key
