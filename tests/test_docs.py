# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What the guides say runs: the blocks of each page of docs/, in their order, where a newcomer stands.

Commands run in this process, which saves twenty imports of torch, and trainings get flags that shorten them. A block
whose first line is `# needs ...` (the Hub, GPUs, a cluster) cannot run here: its commands are parsed. What
docs/results.md shows takes an hour.
"""

import argparse
import ast
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from threadpoolctl import threadpool_limits

from modeling_visreg import VISRegViTConfig, VISRegViTModel, save_checkpoint, to_timm_state_dict
from visreg_training import cli
from visreg_training.config import parse


ROOT = Path(__file__).parent.parent
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name != "results.md")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
TINY = (
    "--hidden_size 16 --num_hidden_layers 4 --num_attention_heads 2 --projector_hidden_size 8 --num_slices 8 "
    "--global_size 32 --local_size 16 --num_workers 0"
)
CONTINUED = "--global_size 32 --local_size 16 --num_workers 0 --max_steps 1 --global_batch_size 4"
# What a command is completed with, by a part of it.
SHORTER = {
    "--initialize_from released": CONTINUED,
    "--initialize_from out": CONTINUED,
    "pretrain --dataset my_photos": f"{TINY} --max_steps 1 --global_batch_size 4",
    "pretrain --dataset packed": f"{TINY} --max_steps 1 --global_batch_size 4",
    "continue_from_a_checkpoint": "--epochs 1",
    "objective_in_your_own_loop": "2",
    "evaluate finetune": "--batch_size 4",
}


class Parsed(Exception):
    """The command was understood, and is not to be run."""


def write_photos(folder: Path, scenes: dict[str, Image.Image], numbers: range) -> None:
    """Overlapping windows of each scene, as JPEG."""
    for name, scene in scenes.items():
        place = folder / name if folder.name != "my_photos" else folder
        place.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            left, top = 37 * number % 300, 29 * number % 180
            scene.crop((left, top, left + 240, top + 200)).save(place / f"{name}{number}.jpg")


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """A folder with photos, the same by class, one photo, and released weights; the working directory."""
    scenes = dict(zip(("china", "flower"), map(Image.fromarray, load_sample_images().images), strict=True))
    write_photos(tmp_path / "my_photos", scenes, range(6))
    write_photos(tmp_path / "my_classes" / "train", scenes, range(4))
    write_photos(tmp_path / "my_classes" / "test", scenes, range(4, 7))
    scenes["china"].crop((200, 100, 440, 300)).save(tmp_path / "photo.jpg")
    torch.manual_seed(0)
    config = VISRegViTConfig(hidden_size=64, num_hidden_layers=4, num_attention_heads=1, image_size=32, patch_size=8)
    torch.save(to_timm_state_dict(VISRegViTModel(config).state_dict(), config), tmp_path / "released.pth")
    save_checkpoint(VISRegViTModel(config), tmp_path / "runs" / "digits" / "model")
    for name in ("examples", "training"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISREG_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, newcomer, monkeypatch):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    if "visreg export" in text and torch.__version__ < "2.8":
        pytest.skip("visreg export needs torch 2.8")
    names = {"__name__": "snippet"}
    for language, block in BLOCK.findall(text):
        if language == "python":
            exec(compile(block, page, "exec"), names)
            continue
        lines = [line.split("  #")[0].strip() for line in block.splitlines()]
        elsewhere = lines[0].startswith("# needs ")
        for command in filter(None, lines[elsewhere:]):
            with monkeypatch.context() as patch, threadpool_limits(1):  # networks this small lose by threads
                carry_out(shlex.split(command), command, elsewhere, patch)


def carry_out(words: list[str], command: str, elsewhere: bool, patch) -> None:
    """Run a command of a page, or parse it if it needs what is not here."""
    if words[0] in ("accelerate", "torchrun"):
        launched(words)
    elif words[0] == "visreg" and elsewhere:
        understood(words[1:], patch)
    elif words[0] in ("visreg", "python"):
        extra = next((flags for part, flags in SHORTER.items() if part in command), "")
        words = [*words, *shlex.split(extra)]
        if words[0] == "visreg":
            cli.main(words[1:])
        else:
            patch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")
    elif words[:2] == ["pip", "install"]:
        for extra in re.findall(r"\[(.*)\]", command):
            assert f'"{extra}": ' in (ROOT / "setup.py").read_text()
    elif words[0] == "sbatch":
        assert Path(words[1]).is_file()
    else:
        assert words[0] in ("hf", "source") or words[:3] == ["python3", "-m", "venv"], command


def launched(words: list[str]) -> None:
    """The launcher's file is there, and the program takes its options."""
    if "--config_file" in words:
        assert Path(words[words.index("--config_file") + 1]).is_file()
    place = words.index("-m")
    assert words[place + 1] == "visreg_training.pretrain"
    parse(words[place + 2 :])


def understood(words: list[str], patch) -> None:
    """The subcommand takes these options."""
    if words[0] in ("pretrain", "preview"):
        own = 2 if words[-2] == "--output" else 0
        parse(words[1 : len(words) - own], needed=("dataset",))
        return
    parse_args = argparse.ArgumentParser.parse_args

    def only_parse(parser, *arguments):
        parse_args(parser, *arguments)
        raise Parsed

    patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    with pytest.raises(Parsed):
        cli.main(words)


def test_the_accumulated_gradient_is_that_of_the_whole_batch():
    """The second block of the page on the loss, without its optimizer, against one pass over all images."""
    text = (ROOT / "docs" / "guide_only_the_loss.md").read_text(encoding="utf-8")
    first, second = [block for language, block in BLOCK.findall(text) if language == "python"]
    names = {"__name__": "snippet"}
    torch.manual_seed(0)
    exec(compile(first, "first", "exec"), names)
    exec(compile(second.replace("optimizer.step()\n", ""), "second", "exec"), names)
    weights = [*names["backbone"].parameters(), *names["projector"].parameters()]
    accumulated = [weight.grad.clone() for weight in weights]
    z = names["projector"](names["backbone"](names["views"].flatten(0, 1))).unflatten(0, (4, 256))
    whole = torch.autograd.grad(names["objective"](z, num_global=4, step=0).total, weights)
    for ours, theirs in zip(accumulated, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_modules_named_for_lora_are_the_linear_layers_of_a_block():
    text = (ROOT / "docs" / "guide_use_a_checkpoint.md").read_text(encoding="utf-8")
    named = re.search(r"target_modules=(\[.*?\])", text)[1]
    config = VISRegViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=8)
    modules = VISRegViTModel(config).named_modules()
    assert {name.rpartition(".")[2] for name, module in modules if isinstance(module, torch.nn.Linear)} == set(
        ast.literal_eval(named)
    )


@pytest.mark.parametrize("page", [*sorted(path.name for path in (ROOT / "docs").glob("*.md")), "../CHANGELOG.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    targets = [name for name in re.findall(r"\]\(([^)#]+)\)", text) if not name.startswith("http")]
    assert [name for name in targets if not (ROOT / "docs" / page).parent.joinpath(name).exists()] == []
    mentioned = re.findall(r"(?:examples|training|docs)/[\w/.]+\.\w+", text)
    assert [name for name in mentioned if not (ROOT / name).exists()] == []
