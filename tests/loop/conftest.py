# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The recipe of the small runs that are killed and resumed."""

import pytest

from helpers import forked


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe file without held-out evaluation, for processes."""
    return forked.write_recipe(tmp_path_factory.mktemp("recipe") / "small.yaml")
