# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The face of a folder: public names whose files are imported when a name is used.

A command that only parses its line, and the options that it parses, then cost no torch (`visreg pretrain --help`).
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType


def face(package: str, files: dict[str, tuple[str, ...]]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__, __dir__ = face(__name__, {"loader": ("PretrainingLoader",)})` in the `__init__.py` of a folder.

    Args:
        package: the folder's name.
        files: file -> its public names. A name that is also a file's has to be imported through the face first, as
            every import of the file would put the module in its place.
    """
    file_of = {name: file for file, names in files.items() for name in names}

    def get(name: str) -> object:
        if name not in file_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{file_of[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *file_of})


def import_alone(name: str) -> ModuleType:
    """A file of another package without that package's `__init__`, which may import far more than the file needs.

    A process that reads images would start two seconds of CPU and 224 MB heavier with all of modeling_visreg. The
    module is the one that a later import of the package finds.

    Args:
        name: "package.file".
    """
    if name in sys.modules:
        return sys.modules[name]
    package, _, file = name.partition(".")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"there is no package {package}", name=package)
    if found.origin is None:
        import_hidden(package)
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, Path(found.submodule_search_locations[0]) / f"{file}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def import_hidden(package: str) -> None:
    """Import a package that a plain folder of the same name hides, whole: later imports have to find it too.

    Python takes a folder without `__init__.py` on its path for a package before it asks the finder of an editable
    install, which stands last.
    """
    specs = (finder.find_spec(package, None) for finder in sys.meta_path)
    spec = next((spec for spec in specs if spec is not None and spec.origin is not None), None)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"there is no package {package}, only a folder without __init__.py", name=package)
    sys.modules[package] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[package]
        raise
