# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Which model: the options of whatever opens one. Imports no torch."""

from dataclasses import dataclass

from ..option import option


POOLINGS = ("cls", "mean", "both")


@dataclass(frozen=True)
class BackboneOptions:
    """Which model."""

    model: str | None = option(None, "directory or Hub id that AutoModel opens, timm:NAME[:FILE], or a run folder")
    trust_remote_code: bool = option(False, "run the code that a Hub repository brings")
