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

from .facts import newest_checkpoint
from .push import try_push
from .staging import link_files


SNAPSHOT = ".pushing"
RECORDS = ("recipe.yaml", "run.json", "metrics.jsonl", "curves.png")


class BackgroundPush:
    """Pushes the newest checkpoint of a run under way, one push at a time.

    Args:
        run: folder of the run.
        repo_id: `organisation/name`.
        **options: of `push_run` (private, revision, include_pretraining, timm, license).
    """

    def __init__(self, run: Path, repo_id: str, **options: Any):
        self.run, self.repo_id, self.options = Path(run), repo_id, options
        self.process: subprocess.Popen | None = None

    def start(self) -> bool:
        """Begins to push the newest checkpoint; False if the last push is not over or there is no checkpoint."""
        if self.process is not None and self.process.poll() is None:
            return False
        checkpoint = newest_checkpoint(self.run)
        if checkpoint is None:
            return False
        snapshot = self.run / SNAPSHOT
        shutil.rmtree(snapshot, ignore_errors=True)
        link_files(checkpoint, snapshot / "checkpoints" / checkpoint.name)
        for name in RECORDS:
            if (self.run / name).is_file():
                shutil.copyfile(self.run / name, snapshot / name)
        order = json.dumps({"run": str(snapshot), "repo_id": self.repo_id, **self.options})
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, order],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        return True

    def message(self) -> str | None:
        """What the last push said, once, when it is over; else None."""
        if self.process is None or self.process.poll() is None:
            return None
        return self._collect()

    def finish(self, seconds: float = 60) -> str | None:
        """Waits for a push that is under way, `seconds` at most, then ends it; what it said, or None."""
        if self.process is None:
            return None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return self._collect()

    def _collect(self) -> str:
        said, _ = self.process.communicate()
        self.process = None
        shutil.rmtree(self.run / SNAPSHOT, ignore_errors=True)
        lines = said.strip().splitlines() or [f"a push to {self.repo_id} ended without a word"]
        return lines[-1].replace(str(self.run / SNAPSHOT), str(self.run))


def main(order: str) -> None:
    print(try_push(**json.loads(order)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
