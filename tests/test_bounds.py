# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What setup.py admits is what `make test-oldest` installs, and everything that is imported is named."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.version import Version


ROOT = Path(__file__).parent.parent
SETUP = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
# Behind an extra, torch's own, or used where it is installed.
OPTIONAL = {"umap", "onnxruntime", "onnx", "onnxscript", "timm", "peft", "gradio", "triton", "pillow_heif"}


def required() -> dict[str, Version]:
    """Lower bounds by name."""
    keywords = [node for node in ast.walk(SETUP) if isinstance(node, ast.keyword)]
    [entries] = [keyword.value for keyword in keywords if keyword.arg == "install_requires"]
    bounds = [entry.split(">=") for entry in ast.literal_eval(entries)]
    return {plain(name): Version(bound) for name, bound in bounds}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_oldest_environment_is_made_of_the_lower_bounds():
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").split()
    pinned = {plain(name): Version(version) for name, version in (line.split("==") for line in lines)}
    assert {name: pinned[name] for name in required()} == required()


def test_whatever_is_imported_is_required():
    found = set()
    for folder in ("modeling_visreg", "training", "hub_cards"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(node.module.split(".")[0])
    ours = {"modeling_visreg", "visreg_training", "visreg_hub_cards"}
    distributions = packages_distributions()
    foreign = found - set(sys.stdlib_module_names) - ours - OPTIONAL
    assert {"torch", "scipy", "pyarrow"} <= foreign
    missing = {name for name in foreign if not {plain(dist) for dist in distributions[name]} & required().keys()}
    assert not missing
