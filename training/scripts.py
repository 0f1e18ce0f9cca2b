# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Scripts that start workers: where workers are spawned, they import the script, and what it calls outside of
`if __name__ == "__main__":` they call too.
"""

import ast
import inspect
import multiprocessing
import sys
from pathlib import Path


def workers_import_this_call() -> bool:
    """Whether the call that led here stands at the top of a script, unguarded, and workers are not forked."""
    started = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    main = sys.modules["__main__"]
    path, frame = getattr(main, "__file__", None), inspect.currentframe()
    while frame is not None and not (frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    if started == "fork" or path is None or frame is None:
        return False
    statements = ast.parse(Path(path).read_text(encoding="utf-8")).body
    guarded = [one for one in statements if isinstance(one, ast.If) and "__name__" in ast.unparse(one.test)]
    return not any(one.lineno <= frame.f_lineno <= (one.end_lineno or one.lineno) for one in guarded)
