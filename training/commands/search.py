# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg search --model M --dataset photos --query photo.jpg`: the images that look most like a photo."""

from ..errors import setting_up
from ..evaluation.options import SearchOptions
from .flags import flat_parser, parse, part


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake."""
    title, needed = "the images of a data set that look most like a photo", ("model", "dataset")
    parser = flat_parser("search", title, SearchOptions, needed=needed)
    given = parse(parser, argv, needed)
    with setting_up():
        from ..evaluation.search import search

        options = part(SearchOptions, given)
        found = search(options)
    for result in found:
        lines = [f"  {similarity:.3f}  {name}" for similarity, name in result.nearest]
        print("\n".join([f"{result.query} (see {options.output})", *lines]))
