# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A card that anybody may have written, and the YAML header of it, read within bounds."""

import re
from pathlib import Path

from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from visreg_training.bounded import parse_yaml, read_text
from visreg_training.errors import one_line


HEADER = re.compile(r"---\s*\n.*?\n---\s*(\n|\Z)", re.DOTALL)
_LARGEST = 1 << 20  # bytes


def read_card_text(path: Path) -> str:
    """The text of a card.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no regular file of text, or larger than a card is.
    """
    return read_text(path, _LARGEST)


def parse_card(text: str, ignore_errors: bool = False) -> ModelCard:
    """huggingface_hub's own reading of a card, of whose header the bounds were looked at before.

    Args:
        text: of the card.
        ignore_errors: leave out what huggingface_hub does not accept of the metadata.

    Raises:
        ValueError: the header is not valid.
    """
    if block := REGEX_YAML_BLOCK.search(text):
        parse_yaml(block.group(2))
    try:
        return ModelCard(text, ignore_metadata_errors=ignore_errors)
    except Exception as error:  # what it makes of a stranger's metadata fails in many ways
        raise ValueError(one_line(error, 300)) from error
