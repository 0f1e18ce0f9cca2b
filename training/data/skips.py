# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Counts and lists what cannot be read, and stops a run that would train on a broken data set."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


# The share is not judged before so many images were seen.
_FEWEST = 1000


class BadDataError(ValueError):
    """More of a data set is unreadable than was allowed."""


@dataclass
class SkipLog:
    """What was skipped so far.

    Attributes:
        max_bad_share: largest share of unreadable images, 0 to 1.
        seen: images looked at, good and bad.
        counts: number of skipped images by kind (`truncated`, `not_image`, ...; `unreadable_file` for whole files).
        path: jsonl file to which each skipped image is added once; None for none.
        enough: images after which the share is judged: 1000, or an epoch where that is shorter.
    """

    max_bad_share: float = 0.01
    seen: int = 0
    counts: Counter = field(default_factory=Counter)
    path: Path | None = None
    enough: int = _FEWEST
    _listed: set = field(default_factory=set)

    def add(self, seen: int, skipped: list[dict]) -> None:
        """Records `seen` images of which `skipped` (dicts with `kind`, `id`, `path`, `detail`) were bad.

        Raises:
            BadDataError: once more than `max_bad_share` of at least `enough` images were bad.
        """
        self.seen += seen
        self.counts.update(record["kind"] for record in skipped)
        self._write([record for record in skipped if record["id"] not in self._listed])
        self.check(skipped[-1] if skipped else None)

    def check(self, last: dict | None) -> None:
        bad = sum(self.counts.values())
        if last is not None and self.seen >= self.enough and bad > self.max_bad_share * self.seen:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts.most_common())
            where = f"; listed in {self.path}" if self.path else ""
            raise BadDataError(
                f"{bad} of {self.seen} images cannot be read ({kinds}; the last one {last['path'] or last['id']}: {last['detail']}), "
                f"more than the allowed share {self.max_bad_share:g} (max_bad_share){where}."
            )

    def _write(self, records: list[dict]) -> None:
        self._listed.update(record["id"] for record in records)
        if self.path is None or not records:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    def state(self) -> dict:
        return {"seen": self.seen, "counts": dict(self.counts)}

    def load(self, state: dict) -> None:
        self.seen, self.counts = state["seen"], Counter(state["counts"])


def skip_record(kind: str, identity: str, path: str | None, detail: str) -> dict:
    """One line of skipped.jsonl."""
    return {"kind": kind, "id": identity, "path": path, "detail": detail}
