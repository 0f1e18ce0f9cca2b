# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The parser of every subcommand: its errors are one line, and it takes no abbreviated options."""

import argparse
from typing import Any, NoReturn

from ..errors import UserError


class OneLineParser(argparse.ArgumentParser):
    """ArgumentParser that raises UserError instead of printing its usage."""

    def __init__(self, command: str, description: str, **kwargs: Any):
        super().__init__(prog=f"visreg {command}", description=description, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(message)
