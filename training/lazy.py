# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The face of a folder: public names whose files are imported when a name is used.

A command that only parses its line, and the options that it parses, then cost no torch (`visreg pretrain --help`).
"""

import importlib
import sys
from collections.abc import Callable


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
