# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg card RUN`: the model card of a run, from what was measured; `visreg card RUN --check` says what is wrong.

The license of the weights is that of the card that is there, else that of the weights the run started from (CC BY-NC
is kept), else apache-2.0. Results of `visreg evaluate ... --output RUN/evaluation` are shown where they were measured
on the weights of the run, beside published figures, and RUN/pca.png, which `visreg visualize pca` replaces.
"""

from pathlib import Path

from ..errors import UserError, setting_up
from ..parser import OneLineParser
from .flags import add_license


def main(argv: list[str]) -> None:
    """Write a card, or check one."""
    parser = OneLineParser("card", __doc__)
    parser.add_argument("run", type=Path, help="folder of a run; for --check also a checkpoint or a README.md")
    parser.add_argument("--check", action="store_true", help="only check the card that is there")
    parser.add_argument("--repo_id", help="organization/name, for the lines that load the model")
    add_license(parser, "")
    parser.add_argument("--overwrite", action="store_true", help="replace a card that was edited by hand")
    options = vars(parser.parse_args(argv))
    run, check = options.pop("run"), options.pop("check")
    from visreg_hub_cards import check_card, find_card, write_card

    with setting_up():
        path = find_card(run) if check else write_card(run, **options)
        problems = check_card(path)
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")
    print(f"{path} is valid" if check else f"wrote {path}")
