# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The parser of every subcommand, under its old name."""

from ..parser import OneLineParser


__all__ = ["OneLineParser"]
