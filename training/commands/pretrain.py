# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg pretrain`: a run of pretraining. What trains is imported once the command line is understood."""

from ..config import parse, recipe_table


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake, RunStopped where a guard or a signal ended the run."""
    if "--list_recipes" in argv:
        print(recipe_table())
        return
    options = parse(argv)
    from ..pretrain import execute

    execute(options)
