# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F401
"""Cards for trained checkpoints, and the way to the Hub. Reads run folders and models; knows nothing of the loop.

push.py         a run to the Hub in one commit; background.py does it while the run goes on
staging.py      which files of a run go up, and under which names
allowlist.py    which files of a folder may go up at all
card.py         the card: written, read, checked; templates/card.md.jinja is its text
metadata.py     what the files of a run say about its model
results.py      its results as rows; tables.py: its data, training and cost; figures.py: its figures
license.py      the license that weights have by their origin
header.py       the header of a card of anybody's, read within bounds
markup.py       text of users as text: it cannot become YAML, HTML or Markdown
timm_format.py  a checkpoint that timm reads too; export.py: ONNX and torch.export (imports torch)
"""

from typing import TYPE_CHECKING

from visreg_training.lazy import face


if TYPE_CHECKING:
    from .background import BackgroundPush
    from .card import check_card, find_card, write_card, write_converted_card, write_derived_card
    from .license import origin_of, recorded_origin
    from .push import PushResult, push_run, try_push


# File -> its public names, imported when they are used: what only reads options needs no torch.
_NAMES = {
    "background": ("BackgroundPush",),
    "card": (
        "check_card",
        "find_card",
        "write_card",
        "write_converted_card",
        "write_derived_card",
    ),
    "license": (
        "origin_of",
        "recorded_origin",
    ),
    "push": (
        "PushResult",
        "push_run",
        "try_push",
    ),
}
__all__ = sorted(name for names in _NAMES.values() for name in names)
__getattr__, __dir__ = face(__name__, _NAMES)
