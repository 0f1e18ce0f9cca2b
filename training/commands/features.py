# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg features --model M --dataset D --split S --output F`: frozen features with ids and labels."""

import json
import sys
from pathlib import Path

from ..backbones.options import BackboneOptions
from ..errors import UserError, setting_up
from ..evaluation.options import SAVED_AS, CacheOptions, FeatureOptions, SplitOptions
from ..run_folder import check_writable
from .flags import flat_parser, parse, part


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake."""
    kinds, needed = (CacheOptions, FeatureOptions, SplitOptions, BackboneOptions), ("model", "dataset", "output")
    parser = flat_parser("features", "features of a data set as a file", *kinds, needed=needed)
    parser.add_argument("--output", type=Path, help=f"ends in {' or '.join(SAVED_AS)}")
    given = parse(parser, argv, needed)
    if given.output.suffix not in SAVED_AS:
        raise UserError(f"--output ends in {' or '.join(SAVED_AS)}, not {given.output.name!r}")
    with setting_up():
        from ..backbones import open_backbone
        from ..distributed import process_state
        from ..evaluation.cache import cached_features, save_features

        check_writable(given.output)
        model, options, cache = (part(kind, given) for kind in (BackboneOptions, FeatureOptions, CacheOptions))
        backbone = open_backbone(model.model, model.trust_remote_code).to(process_state().device)
        source = part(SplitOptions, given).open()
        features = cached_features(backbone, source, options, cache.cache, cache.batch_size)
        if process_state().is_main_process:
            record = {"model": backbone.description(), "data": source.description(), "labels": source.label_names}
            if features.classes is not None:  # of the columns of labels that are 0 and 1
                record["labels"] = list(map(str, features.classes))
            save_features(given.output, features, json.dumps(record))
            shape = " x ".join(map(str, features.features.shape))
            print(f"{shape} features written to {given.output}", file=sys.stderr)
