# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Pushing checkpoints while a training goes on: another process sends a snapshot, the training never waits for it.

Another process, because loading a model changes global state of torch and the Hub may take minutes to fail.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from visreg_training.locks import Lock, remove_leftovers
from visreg_training.run_folder import RunFolder

from .push import try_push
from .staging import snapshot


class BackgroundPush:
    """Pushes the newest checkpoint of a run under way, one push at a time.

    Args:
        run_folder: of the run.
        repo_id: `organization/name`.
        **options: of `push_run` (private, revision, include_pretraining, timm, license).
    """

    def __init__(self, run_folder: Path, repo_id: str, **options: Any):
        self.folder, self.repo_id, self.options = RunFolder(run_folder), repo_id, options
        self.snapshot = RunFolder(self.folder.pushing)
        self.process: subprocess.Popen | None = None

    def start(self) -> bool:
        """Begins to push the newest checkpoint; False if the last push is not over or there is no checkpoint.

        The last push may be one of an earlier start of the run, which outlived it.
        """
        if self.process is not None and self.process.poll() is None:
            return False
        remove_leftovers([self.snapshot.path])
        if self.snapshot.path.exists() or not snapshot(self.folder, self.snapshot):
            return False
        arguments = json.dumps({"run": str(self.snapshot), "repo_id": self.repo_id, **self.options})
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        return True

    def message(self) -> str | None:
        """The last line of the last push, once, when it is over; else None."""
        if self.process is None or self.process.poll() is None:
            return None
        return self._collect()

    def finish(self, seconds: float = 60) -> str | None:
        """Waits for a push that is under way, `seconds` at most, then ends it; its last line, or None."""
        if self.process is None:
            return None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return self._collect()

    def _collect(self) -> str:
        output, _ = self.process.communicate()
        self.process = None
        shutil.rmtree(self.snapshot.path, ignore_errors=True)
        lines = output.strip().splitlines() or [f"a push to {self.repo_id} ended without a message"]
        return lines[-1].replace(str(self.snapshot), str(self.folder))


def main(arguments: str) -> None:
    """The push itself; it clears up after itself, because its parent may be gone by then."""
    options = json.loads(arguments)
    lock = Lock(Path(options["run"]))
    lock.take()
    try:
        print(try_push(**options), flush=True)
    finally:
        shutil.rmtree(options["run"], ignore_errors=True)
        lock.release()


if __name__ == "__main__":
    main(sys.argv[1])
