# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Sharing a run on the Hub while it trains and when it ends; the Hub being away never blocks or ends a training."""

from typing import Any

from visreg_hub_cards import BackgroundPush, try_push


class Sharing:
    """Pushes every n-th checkpoint from another process, and the finished run. Does nothing unless asked to.

    Args:
        parts: the run; only its main process pushes.
    """

    def __init__(self, parts: Any):
        options, self.folder = parts.arguments.run, parts.folder
        self.wanted = options.push_to_hub and parts.accelerator.is_main_process
        self.repo_id, self.every, self.private = options.repo_id, options.push_every, options.private
        self.background = BackgroundPush(self.folder, self.repo_id, private=self.private) if self.wanted else None
        self.checkpoints = 0

    def checkpoint_written(self) -> None:
        """After each checkpoint; says how the push before it went."""
        self.checkpoints += 1
        if not self.wanted or not self.every or self.checkpoints % self.every:
            return
        said = self.background.message()
        if said:
            print(said)
        self.background.start()

    def run_finished(self) -> None:
        """After the card is written: one commit with the finished run, or a line that says how to push it later."""
        if self.wanted:
            self.close()  # an older checkpoint must not arrive after the finished model
            print(try_push(self.folder, self.repo_id, private=self.private))

    def close(self) -> None:
        """End a push that is under way, and say how it went."""
        said = self.background.finish() if self.wanted else None
        if said:
            print(said)
