# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg plan`: what it prints, by known counts."""

import pytest
from PIL import Image

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
