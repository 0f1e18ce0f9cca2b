# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg push`: a run, or a checkpoint directory, to the Hub in one commit, with its card."""

from pathlib import Path

from ..errors import setting_up
from ..parser import OneLineParser
from .flags import add_license


def main(argv: list[str]) -> None:
    """One commit, or none if nothing changed or something is wrong."""
    parser = OneLineParser("push", __doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a run, or a checkpoint directory")
    parser.add_argument("--repo_id", required=True, help="organization/name; created if it is not there")
    parser.add_argument("--private", action="store_true", help="create it private")
    parser.add_argument("--revision", help="branch, created if it is not there (default: main)")
    add_license(parser, " (default: see `visreg card --help`)")
    parser.add_argument(
        "--include_pretraining",
        action="store_true",
        help="also the projector, and the newest checkpoint to go on from (its state.json names local folders)",
    )
    parser.add_argument("--timm", action="store_true", help='also for timm.create_model("hf-hub:organization/name")')
    parser.add_argument("--dry_run", action="store_true", help="list what would go up, and send nothing")
    options = vars(parser.parse_args(argv))
    with setting_up():
        from visreg_hub_cards import push_run

        result = push_run(options.pop("model"), **options)
    print("\n".join(result.lines()))
