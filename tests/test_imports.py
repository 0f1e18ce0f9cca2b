# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Imports go one way: floor <- objective, data, backbones <- config <- evaluation, loop <- monitoring <- the rest."""

import ast
import importlib
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from visreg_training.lazy import import_alone


ROOT = Path(__file__).parent.parent
FOLDERS = {"modeling_visreg": "modeling_visreg", "visreg_training": "training", "visreg_hub_cards": "hub_cards"}

FLOOR = {
    f"visreg_training.{name}"
    for name in (
        "errors",
        "lazy",
        "progress",
        "bounded",
        "locks",
        "machine",
        "seeding",
        "distributed",
        "retry",
        "option",
        "parser",
        "run_folder",
        "scripts",
        "threads",
        "compat",
        "triton_support",
    )
}
LEAVES = {f"visreg_training.{name}" for name in ("objective", "data", "backbones")} | {"modeling_visreg"} | FLOOR
CONFIG = LEAVES | {"visreg_training.config"}

# Room -> rooms of ours that it may import (itself aside).
ARROWS = {
    "modeling_visreg": set(),
    **dict.fromkeys(FLOOR, FLOOR),
    "visreg_training.objective": FLOOR,
    "visreg_training.data": FLOOR | {"modeling_visreg"},  # of it decoding_visreg.py alone, by `import_alone`
    "visreg_training.backbones": FLOOR | {"modeling_visreg", "visreg_training.data"},
    "visreg_training.config": LEAVES,
    "visreg_training.evaluation": LEAVES,
    "visreg_training.loop": CONFIG | {"visreg_training.evaluation", "visreg_hub_cards"},
    "visreg_training.monitoring": CONFIG | {"visreg_training.evaluation", "visreg_training.loop", "visreg_hub_cards"},
    "visreg_hub_cards": FLOOR
    | {"modeling_visreg", "visreg_training.config", "visreg_training.evaluation", "visreg_training.objective"},
}


def room(module: str) -> str:
    """The part of a dotted name that stands in ARROWS."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "visreg_training" else parts[0]


def imported(path: Path, module: str, package: str) -> set[str]:
    """Absolute names of what a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names |= {stem} if node.module else {f"{stem}.{alias.name}" for alias in node.names}
    return names


def modules() -> list[tuple[Path, str, str]]:
    found = []
    for name, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [name, *path.relative_to(ROOT / folder).with_suffix("").parts]
            package = ".".join(parts[:-1])
            found.append((path, package if parts[-1] == "__init__" else ".".join(parts), package))
    return found


@pytest.mark.parametrize("path, module, package", modules(), ids=lambda value: str(value)[-40:])
def test_no_wrong_arrow(path, module, package):
    ours = {name for name in imported(path, module, package) if name.split(".")[0] in FOLDERS}
    others = {room(name) for name in ours} - {room(module)}
    if room(module) in ARROWS:
        assert others <= ARROWS[room(module)], f"{module} may not import {others - ARROWS[room(module)]}"
    banned = {name.split(".")[0] for name in imported(path, module, package)} & {"training", "hub_cards"}
    assert not banned, f"{module} imports {banned} by the folder's name"


def test_the_walk_sees_a_wrong_arrow(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from ..loop.run import Run\n")
    assert imported(path, "visreg_training.data.wrong", "visreg_training.data") == {"visreg_training.loop.run"}


def test_the_objective_needs_only_torch():
    code = (
        "import sys; from visreg_training.objective import VISRegObjective; "
        "print([name for name in ('transformers', 'datasets', 'accelerate') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_test_loads_a_file_by_its_path():
    loaders = {"spec_from_file_location", "SourceFileLoader"}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not used & loaders, f"{path} loads a file by its path: move it to tests/helpers"


def test_reading_images_does_not_import_transformers():
    """A process that reads images imports one file of modeling_visreg, the very module that the package has."""
    lines = [
        "import sys, visreg_training.data.decode as decode",
        "print('transformers' in sys.modules, 'modeling_visreg' in sys.modules)",
        "import modeling_visreg.checkpoint",
        "from modeling_visreg.image_processing_visreg import upright",
        "print(decode.decoding.upright is upright)",
    ]
    shown = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False", "True"]


class LastFinder:
    """What an editable install appends to `sys.meta_path`: it knows a package's folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        return PathFinder.find_spec(name, [str(self.folder)]) if path is None else None


def test_a_plain_folder_does_not_hide_an_editable_install(tmp_path, monkeypatch):
    for place in ("user/kept_apart", "install/kept_apart"):
        (tmp_path / place).mkdir(parents=True)
    with pytest.raises(ModuleNotFoundError, match=r"no package kept_apart$"):
        import_alone("kept_apart.one")
    monkeypatch.syspath_prepend(tmp_path / "user")
    with pytest.raises(ModuleNotFoundError, match=r"only a folder without __init__\.py"):
        import_alone("kept_apart.one")
    (tmp_path / "install" / "kept_apart" / "__init__.py").write_text("from .one import NUMBER\n")
    (tmp_path / "install" / "kept_apart" / "one.py").write_text("NUMBER = 7\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, LastFinder(tmp_path / "install")])
    try:
        assert import_alone("kept_apart.one").NUMBER == 7
        assert importlib.import_module("kept_apart").NUMBER == 7
    finally:
        for name in [name for name in sys.modules if name.startswith("kept_apart")]:
            del sys.modules[name]
