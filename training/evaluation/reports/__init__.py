# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What is left of an evaluation: files, tables and pictures.

results.py      a result as a JSON file
compare.py      results side by side, as markdown      published.py    the reference rows
pictures.py     what a model sees, as PNG files        drawing.py      `visreg visualize`: which picture, of what
"""
