# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What several tests share; pytest's `pythonpath` makes it importable as `helpers`."""
