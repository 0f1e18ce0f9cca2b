# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What is uploaded as a Space is complete: the model's code comes from this repository, the rest from an index."""

import ast
import re
import sys
from pathlib import Path


ROOT = Path(__file__).parents[2]
SPACE = ROOT / "examples" / "space"
IMPORTED_AS = {"pillow": "PIL"}
WHERE_INSTALLED = {"pillow_heif"}  # more formats are read
BROUGHT = {"gradio", "huggingface_hub"}  # by the Space's SDK, and by transformers


def test_the_requirements_are_what_is_imported():
    found = set()
    for path in (SPACE / "app.py", *(ROOT / "modeling_visreg").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    foreign = (
        found - set(sys.stdlib_module_names) - {"modeling_visreg", "pillow_heif"} - BROUGHT
    )  # HEIC where it is installed
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    required = {re.split("[>=]", line)[0] for line in lines}
    assert foreign == {IMPORTED_AS.get(name, name) for name in required} - {"torchvision"}  # of the image processor
    setup = (ROOT / "setup.py").read_text()
    assert [line for line in lines if f'"{line}"' not in setup] == []  # the bounds of the package itself
