# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg features --model M --dataset D --split S --output F`: frozen features with ids and labels.

n images, D numbers an image.
"""

import json
import sys
from pathlib import Path

from ..backbones import open_backbone
from ..data import open_stream
from ..errors import UserError, setting_up
from ..evaluation.features import FeatureCache, FeatureSettings, cached_features, save_features
from ..evaluation.processes import processes
from .evaluate import add_feature_options, add_model_options, boolean
from .parsing import OneLineParser


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake."""
    parser = OneLineParser("features", "frozen features of a data set as a safetensors or parquet file")
    add_model_options(parser)
    parser.add_argument("--dataset", required=True, help="digits, a Hub id, a folder, or a glob of files")
    parser.add_argument("--dataset_config", help="configuration of a Hub data set")
    parser.add_argument("--revision", help="commit, branch or tag of a Hub data set")
    parser.add_argument("--split", default="train", help="(default train)")
    parser.add_argument("--image_column", help="default: found by its type")
    parser.add_argument("--label_column", help="default: found by its type")
    parser.add_argument("--streaming", type=boolean, help="read shards in sequence; default: for Hub ids")
    parser.add_argument("--output", type=Path, required=True, help="ends in .safetensors or .parquet")
    add_feature_options(parser)
    options = parser.parse_args(argv)
    if options.output.suffix not in (".safetensors", ".parquet"):
        raise UserError(f"--output ends in .safetensors or .parquet, not {options.output.name!r}")
    settings = (options.layers, options.pooling, options.image_size, options.limit, options.precision, options.seed)
    names = ("dataset_config", "revision", "split", "image_column", "label_column", "streaming")
    with setting_up():
        model = open_backbone(options.model, options.trust_remote_code).to(processes().device)
        source = open_stream(options.dataset, **{name: getattr(options, name) for name in names})
        cache = FeatureCache(options.cache_dir)
        features = cached_features(model, source, FeatureSettings(*settings), cache, options.batch_size)
        if processes().is_main_process:
            record = {"model": model.description(), "data": source.description(), "labels": source.label_names}
            save_features(options.output, features, json.dumps(record))
            shape = " x ".join(map(str, features.features.shape))
            print(f"{shape} features written to {options.output}", file=sys.stderr)
