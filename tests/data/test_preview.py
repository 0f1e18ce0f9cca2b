# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The contact sheet of `visreg preview`."""

import numpy as np
from PIL import Image

from visreg_training.data import DeviceAugment, MultiCrop, open_stream, preview


def test_preview_writes_a_sheet_and_says_what_is_there(five_shards, tmp_path):
    metadata = preview(
        open_stream(five_shards), MultiCrop(2, 3, 32, 16), DeviceAugment(), tmp_path / "sheet.png", count=4
    )
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (32 + 2 * 36 + 3 * 20, 4 * 36 - 4)
    assert (
        metadata["num_examples"] == 120
        and metadata["views"] == ["2 x 32", "3 x 16"]
        and metadata["images_per_second"] > 0
    )
    assert metadata["sizes"] == [(40, 30)] * 3
    assert np.asarray(sheet).std() > 10
