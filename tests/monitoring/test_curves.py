# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""curves.png: a panel for what there is, and nothing where there is none."""

import numpy as np
import pytest
from PIL import Image

from visreg_training.monitoring.curves import COLORS, draw_curves


TERMS = ("total", "invariance", "center", "scale", "shape", "projection_rank", "feature_rank", "grad_norm")


@pytest.mark.parametrize("probed", [False, True])
def test_an_unlabeled_run_has_no_empty_panel(tmp_path, probed):
    names = (*TERMS, "images_per_second", *(("probe_linear", "probe_knn") if probed else ()))
    rows = [{"step": step, **dict.fromkeys(names, 1 / step)} for step in (1, 2, 3)]
    draw_curves(rows, tmp_path / "curves.png")
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("L"))
    height, width = pixels.shape
    last = pixels[height // 2 :, 2 * width // 3 + width // 20 :]  # the sixth of six places
    assert (last.min() < 128) == probed
    assert pixels[: height // 2, : width // 3].min() < 128


def test_a_single_point_is_seen(tmp_path):
    draw_curves([{"step": 1, "total": 0.5}], tmp_path / "curves.png")
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)
    blue = np.array([int(COLORS[0][start : start + 2], 16) for start in (1, 3, 5)])
    assert (np.abs(pixels - blue).max(-1) < 20).sum() >= 5
