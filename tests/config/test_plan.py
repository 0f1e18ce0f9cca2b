# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg plan`: what it prints, by known counts."""

import math

import pytest
from PIL import Image
from transformers import Dinov2Config

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from visreg_training.commands import plan
from visreg_training.errors import UserError


def test_the_command_prints_counts_and_estimates(capsys):
    plan.main(["--config", "vit_base_in1k", "--gpus", "8", "--gpu", "h100"])
    printed = capsys.readouterr().out
    assert "counted:" in printed and "estimated:" in printed
    assert "92.1 M" in printed and "16 images, 16,160 tokens" in printed  # 4 x 197 + 6 x 37 tokens an image


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--gpus", "7"], "cannot be shared by 7 processes: use 126 or 133"),
        (["--utilization", "1.5"], r"utilization in \(0, 1\]"),
        (["--utilization", "0"], r"utilization in \(0, 1\]"),
        (["--dataset", "my_photos"], "--images is missing: the size of my_photos"),
    ],
)
def test_what_does_not_fit_is_refused(flags, words):
    with pytest.raises(UserError, match=words):
        plan.main(["--config", "vit_base_in1k", *flags])


def test_a_local_folder_tells_its_number_of_images(tmp_path, capsys):
    for number in range(7):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    flags = ["--config", "digits", "--dataset", str(tmp_path), "--eval_split", "none", "--epochs", "10"]
    plan.main([*flags, "--global_batch_size", "4"])
    assert "for 70 images" in capsys.readouterr().out


def test_a_start_is_counted_in_its_own_shape_or_refused(tmp_path, capsys):
    """A checkpoint of ours by its configuration; of other families nothing is estimated."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16, "image_size": 64}
    model = VISRegViTForPreTraining(VISRegViTConfig(**shape))
    model.config.save_pretrained(tmp_path / "ours")
    flags = ["--dataset", "digits", "--global_size", "64", "--local_size", "32"]
    plan.main(["--initialize_from", str(tmp_path / "ours"), *flags])
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count / 1e6:.1f} M" in line(capsys.readouterr().out, "parameters")
    Dinov2Config(**shape).save_pretrained(tmp_path / "other")
    for start in (["--initialize_from"], ["--from_scratch", "--model"]):
        with pytest.raises(UserError, match="other is not our own ViT, and of others nothing is estimated"):
            plan.main([*start, str(tmp_path / "other"), *flags])


def line(printed: str, name: str) -> str:
    """What a plan says of one thing."""
    return next(text.split(name)[1].strip() for text in printed.splitlines() if text.strip().startswith(name))


@pytest.mark.parametrize(
    "flags, rate, reason",
    [
        (["--gpus", "1"], 609, "33% of the peak, as a ViT-B on an H100 in bf16 with compiled blocks"),
        (["--gpus", "1", "--compile", "no"], 462, "25% of the peak, as a ViT-B on an H100 in bf16 with no compiled"),
        (["--gpus", "8"], 8 * 16 / 0.037, "the host enqueues a step in 37 ms, the device needs 26: more images a GPU"),
        (["--utilization", "0.5"], 923, "50% of the peak, as given"),
    ],
)
def test_the_rate_is_what_was_measured_and_says_what_holds_it_up(flags, rate, reason, capsys):
    """68.5 TFLOP a step of 128 images, at a share of 989 TFLOP/s; 16 images a GPU wait for the host."""
    plan.main(["--config", "vit_base_in1k", *flags])
    printed = capsys.readouterr().out
    said = line(printed, "rate")
    assert float(said.split()[0]) == pytest.approx(rate, rel=0.01) and reason in said
    hours = 400 * 1_281_167 / rate / 3600
    number, unit = line(printed, "duration").split()[:2]
    assert float(number) == pytest.approx(hours / 24 if unit == "days" else hours, rel=0.01) and (unit == "days") == (
        hours >= 48
    )
    assert ("communication is not counted" in said) == ("8" in flags)
    assert line(printed, "worker cores").startswith(f"{math.ceil(float(said.split()[0]) / 100)} at 100")
