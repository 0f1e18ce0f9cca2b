# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg visualize KIND`: pictures of what frozen models see.

visreg visualize pca --model A B --images photos/ --output pca.png
visreg visualize map --model A --dataset digits --split test --output map.png
"""

import sys
from argparse import Namespace

from ..errors import UserError, setting_up
from ..evaluation.options import FeatureOptions
from ..evaluation.reports.picture_options import PICTURES
from ..run_folder import check_writable
from .flags import flat_parser, parse, part


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<11} {picture.title}" for name, picture in PICTURES.items())
        print(f"usage: visreg visualize KIND --model MODEL --output FILE.png [options]\n\n{lines}")
        return
    kind, rest = argv[0], argv[1:]
    if kind not in PICTURES:
        raise UserError(f"there is no picture '{kind}'; there are {', '.join(PICTURES)}")
    picture = PICTURES[kind]
    kinds = (picture.options, *((FeatureOptions,) if picture.of_features else ()))
    needed = ("model", "output", *(("dataset",) if picture.of_features else ()))
    parser = flat_parser(f"visualize {kind}", picture.title, *kinds, needed=needed)
    given = parse(parser, rest, needed)
    with setting_up():
        from ..evaluation.reports.drawing import draw

        check_writable(given.output)
        taken = part(FeatureOptions, Namespace(**{"layers": picture.layers} | vars(given)))
        written = draw(kind, part(picture.options, given), taken)
    print(f"written to {written}", file=sys.stderr)
