# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What several tests share: `from helpers import forked` (pytest's `pythonpath`); nothing is loaded by its path.

fork_server.py         commands and scripts in processes forked from one that has imported everything
forked.py              whole runs, killed and resumed, by forked processes
loopback_hub.py        a Hugging Face Hub on loopback
objective_on_ranks.py, step_on_ranks.py, evaluate_on_ranks.py, suite_on_ranks.py    programs that several ranks run
mutations.py           files as nobody should write them
"""

import sys
from pathlib import Path


# Of a script in tests/, Python's path begins there, where modeling_visreg/ is a folder of tests and no package. In an
# editable install it would be found first.
_ROOT = str(Path(__file__).parents[2])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)
