# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Invariant 7: what the README says runs. Its commands and snippets are read from the file and executed.

Commands that would train for hours get flags that shorten them; nothing else of them is changed.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import fork_server
from modeling_visreg import VISRegViTConfig, VISRegViTModel, to_timm_state_dict


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent

TINY = "--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --projector_hidden_size 8 --num_workers 0"
# What a command is completed with, by a part of it. None: run as it stands.
SHORTER = {
    "--dataset my_photos": f"{TINY} --max_steps 1 --global_batch_size 4",
    "accelerate launch": f"--cpu_data {TINY} --max_steps 1 --global_batch_size 4",
    "--config vit_base_in1k": f"--cpu_data {TINY} --max_steps 1 --global_batch_size 4",
    "make demo": "--epochs 1 --num_workers 0",
    "make test": None,
}
SPAWN = "import multiprocessing\nmultiprocessing.set_start_method('spawn', force=True)\n"
LOCAL = "--dataset my_photos --output_dir small --overwrite --global_size 32 --local_size 16 --mixed_precision no"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a newcomer stands after `make demo`, with a photo, a folder of them, and a released file."""
    folder = tmp_path_factory.mktemp("newcomer")
    draws = np.random.default_rng(0)
    (folder / "my_photos").mkdir()
    for number in range(8):
        pixels = draws.integers(0, 255, (48, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "my_photos" / f"{number}.jpg")
    Image.fromarray(pixels).save(folder / "photo.jpg")
    config = VISRegViTConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=8)
    torch.save(to_timm_state_dict(VISRegViTModel(config).state_dict(), config), folder / "released.pth")
    run(shortened("make demo"), folder)
    return folder


def run(command, folder):
    if Path(command[0]).name == "visreg":
        done = fork_server.run(*command[1:], cwd=folder)
    else:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    return done.stdout


def shortened(command):
    """The command's words, by the tools of this environment, with the flags that shorten it."""
    extra = next((flags for part, flags in SHORTER.items() if part in command), "") or ""
    if command.startswith("make "):
        command = recipe_of(command.split()[1])
    words = shlex.split(command)
    return [str(BIN / Path(words[0]).name), *words[1:], *shlex.split(extra.replace("--cpu_data", LOCAL))]


def recipe_of(target):
    """The last command that `make TARGET` would run."""
    printed = subprocess.run(
        ["make", "-n", "-C", str(ROOT), target], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in printed.splitlines() if line.startswith(".venv/bin/")][-1]


def test_commands_and_snippets(folder):
    """All commands in the order of the page, then all snippets in theirs, in one interpreter."""
    for command in commands():
        if not command.startswith("make "):
            run(shortened(command), folder)
    script = folder / "snippets.py"
    script.write_text("\n".join(block for block in blocks("python") if "pretrain(" not in block))
    assert "torch.Size([1, 64])" in run([sys.executable, str(script)], folder)
    assert len(blocks("python")) >= 4 and len(commands()) >= 8


def test_a_snippet_that_trains_may_spawn_its_workers(tmp_path):
    """As macOS, Windows and Python 3.14 do: they import the script."""
    (snippet,) = (block for block in blocks("python") if "pretrain(" in block)
    script = tmp_path / "snippet.py"
    script.write_text(SPAWN + snippet)
    assert 0 < float(run([sys.executable, str(script)], tmp_path).split()[-1]) < 1


def test_make_test_is_what_ci_runs():
    assert "pytest" in recipe_of("test") and "make test" in (ROOT / ".ci" / "run").read_text()
    assert {"make demo", "make test"} <= set(commands())


def test_links_and_pictures_are_there():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert [name for name in targets if not name.startswith("http") and not (ROOT / name).exists()] == []
