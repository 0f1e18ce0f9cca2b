# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg card RUN`: the model card of a run, from what was measured; `visreg card RUN --check` says what is wrong.

The license of the weights is that of the card that is there, else that of the weights the run started from (CC BY-NC
is kept), else apache-2.0. Results of `visreg evaluate ... --output RUN/evaluation` are shown where they were measured
on the weights of the run, and RUN/pca.png, which `visreg visualize pca` replaces.
"""

from pathlib import Path

from visreg_hub_cards import Reference, check_card, write_card

from ..errors import UserError, setting_up
from .parsing import OneLineParser


def main(argv: list[str]) -> None:
    """Write a card, or check one."""
    parser = OneLineParser("card", __doc__)
    parser.add_argument("run", type=Path, help="folder of a run; for --check also a checkpoint or a README.md")
    parser.add_argument("--check", action="store_true", help="only check the card that is there")
    parser.add_argument("--repo_id", help="organisation/name, for the lines that load the model")
    parser.add_argument("--license", help="of the weights, as the Hub writes it")
    parser.add_argument("--overwrite", action="store_true", help="replace a card that was edited by hand")
    given = parser.parse_args(argv)
    if given.check:
        path = find_card(given.run)
    else:
        with setting_up():
            path = write_card(
                given.run,
                repo_id=given.repo_id,
                license=given.license,
                overwrite=given.overwrite,
                references=published_beside(given.run),
            )
    if problems := check_card(path):
        raise UserError(f"{path}: {'; '.join(problems)}")
    print(f"{path} is valid" if given.check else f"wrote {path}")


def published_beside(run: Path) -> dict[str, list[Reference]]:
    """Published figures of the same protocol and data set as each result in run/evaluation, by its file name.

    Raises:
        ValueError: a file there is no result of `visreg evaluate`.
    """
    paths = sorted((run / "evaluation").glob("*.json"))
    if not paths:
        return {}
    # Here, because they import torch and datasets, which no other part of the command needs.
    from ..evaluation.compare import column
    from ..evaluation.published import OTHER_METRIC, PUBLISHED
    from ..evaluation.results import read_result

    found = {}
    for path in paths:
        result = read_result(path)
        key = column(result)
        found[path.name] = [
            Reference(row.method, row.note, row.figures[key])
            for row in PUBLISHED
            if row.protocol == result["protocol"] and key in row.figures and key not in OTHER_METRIC
        ]
    return found


def find_card(place: Path) -> Path:
    """The card of a run, of a checkpoint directory, or the file itself."""
    for path in (place, place / "model" / "README.md", place / "README.md"):
        if path.is_file():
            return path
    raise UserError(f"there is no card at {place}: `visreg card {place}` writes one for a finished run")
