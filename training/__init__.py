# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Everything that trains, measures and analyses VISReg models.

`from visreg_training.objective import VISRegObjective` costs only torch: this file imports nothing, so that the
objective can be used without transformers or datasets.
"""
