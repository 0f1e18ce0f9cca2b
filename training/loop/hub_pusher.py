# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Pushing a run to the Hub while it trains and when it ends; the Hub being away never blocks or ends a training."""

from visreg_hub_cards import BackgroundPush, try_push

from .run import Run


class HubPusher:
    """Pushes every n-th checkpoint from another process, and the finished run. Does nothing unless asked to.

    Args:
        run: only its main process pushes.
    """

    def __init__(self, run: Run):
        options, self.folder = run.options, run.folder.path
        self.wanted = options.push_to_hub and run.is_main
        self.repo_id, self.every, self.private = options.repo_id, options.push_every, options.private
        self.background = BackgroundPush(self.folder, self.repo_id, private=self.private) if self.wanted else None
        self.checkpoints = 0

    def checkpoint_written(self) -> None:
        """After each checkpoint; says how the push before it went."""
        self.checkpoints += 1
        if self.background is None or not self.every or self.checkpoints % self.every:
            return
        if message := self.background.message():
            print(message)
        self.background.start()

    def run_finished(self) -> None:
        """After the card is written: one commit with the finished run, or a line that says how to push it later."""
        if self.wanted:
            self.close()  # an older checkpoint must not arrive after the finished model
            print(f"pushing to {self.repo_id}; a Hub that does not answer is given up after minutes", flush=True)
            print(try_push(self.folder, self.repo_id, private=self.private))

    def close(self) -> None:
        """End a push that is under way, and say how it went."""
        if self.background is not None and (message := self.background.finish()):
            print(message)
