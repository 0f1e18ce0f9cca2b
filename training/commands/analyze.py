# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg analyze NAME`: the paper's analyses, each a record (JSON), a figure and verdicts; `all` also makes one page
of them.

visreg analyze collapse
visreg analyze all --scale small --output_dir runs/analysis
"""

from ..analysis.options import ANALYSES, AnalysisOptions
from ..errors import UserError, setting_up
from ..machine import check_workers
from ..option import check_options, take
from ..parser import OneLineParser, add_options


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake."""
    if not argv or argv[0] in ("-h", "--help"):
        titles = {**ANALYSES, "all": "every one, and a report"}
        lines = "\n".join(f"  {name:<15} {title}" for name, title in titles.items())
        print(f"usage: visreg analyze NAME [options]; `visreg analyze NAME --help` lists the options\n\n{lines}")
        return
    name, rest = argv[0], argv[1:]
    if name not in ANALYSES and name != "all":
        raise UserError(f"there is no analysis '{name}'; there are {', '.join(ANALYSES)} and all")
    parser = OneLineParser(f"analyze {name}", ANALYSES.get(name, "every analysis, and a report"))
    add_options(parser, AnalysisOptions, output="output_dir")
    options = take(AnalysisOptions, parser.parse_args(rest))
    with setting_up():
        check_options(options)
        check_workers(options.workers or 0, "workers")
    from ..analysis.run import analyze

    analyze(list(ANALYSES) if name == "all" else [name], options)
