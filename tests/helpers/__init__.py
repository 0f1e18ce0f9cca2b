# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What several tests share: `from helpers import forked` (pytest's `pythonpath`); nothing is loaded by its path.

fork_server.py         commands and scripts in processes forked from one that has imported everything
forked.py              whole runs, killed and resumed, by forked processes
loopback_hub.py        a Hugging Face Hub on loopback
objective_on_ranks.py, step_on_ranks.py, evaluate_on_ranks.py, suite_on_ranks.py    programs that several ranks run
"""
