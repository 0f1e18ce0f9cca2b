# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Where images come from. Every kind is opened by `open_stream` and read as one of two kinds of source.

opening.py        `open_stream`: finds out the kind, then the columns
digits.py         the embedded digits
scan.py           what lies below a folder, and what of it is not read
split_names.py    which split a folder or a file is named after
image_folder.py   folders of images, with class folders or without; metadata.py reads tables of labels
files.py          parquet, arrow and tar files; tars.py reads WebDataset
saved.py          what Dataset.save_to_disk wrote
hub.py            data sets on the Hub, pinned to a commit
opened.py         what each of them returns; `NoSuchSplit`
builder.py        the builders of `datasets`, with retries and one-line errors
columns.py        the image and the label column, by type
source.py         what `MapSource` (map_source.py) and `StreamSource` (stream_source.py) have in common
"""

from .map_source import MapSource
from .opened import NoSuchSplit
from .opening import check_output, open_stream
from .source import Source
from .stream_source import StreamSource


__all__ = ["MapSource", "NoSuchSplit", "Source", "StreamSource", "check_output", "open_stream"]
