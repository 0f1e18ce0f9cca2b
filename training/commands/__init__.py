# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `visreg`, one module each: a parser and a few calls into the folder that does the work.

What does it is imported inside `main`, once the command line is understood: `--help` and a mistake take no seconds.
"""
