# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A folder of images that the tests of sources share."""

import pytest


@pytest.fixture
def image_folder(tmp_path, photo, encode_image):
    """Three classes of 2, 3 and 5 images, with splits on request."""

    def make(*parents: str):
        for parent in parents or ("",):
            for name, count in (("ant", 2), ("bee", 3), ("cat", 5)):
                folder = tmp_path / "photos" / parent / name
                folder.mkdir(parents=True)
                for number in range(count):
                    (folder / f"{name}_{number}.png").write_bytes(encode_image(photo[:9, :9], "png"))
        return tmp_path / "photos"

    return make
