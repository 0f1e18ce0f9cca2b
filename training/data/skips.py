# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Counts and lists what cannot be read, and stops a run that would train on a broken data set."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadDataError
from ..run_folder import appended


# The share is not checked before so many images were seen.
_FEWEST = 1000
# So many unreadable images stop nothing, unless none are allowed: one of 40 photos is 2.5 %. At most a quarter of all.
_FEW = 5
_NAMED = 10  # unreadable images that an error names
UNREADABLE_FILE = "unreadable_file"


@dataclass
class SkipLog:
    """What was skipped so far.

    Attributes:
        max_bad_share: largest share of unreadable images, 0 to 1; a few are always allowed, unless it is 0.
        seen: images looked at, good and bad, each as often as it was.
        counts: number of skipped images by kind (`truncated`, `not_image`, ...; `unreadable_file` for whole files),
            each as often as it was skipped.
        path: jsonl file to which each skipped image is added once; None for none.
        enough: images after which the share is checked: 1000, or an epoch where that is shorter.
        shards: files of a stream, for the share of those that cannot be read.
        total: images there are, None where that is unknown.
        at_end: of images that are read once: the share is of all of them, and `finish` checks it.
        flag: of the command that allows more, for the message; "" where there is none.
    """

    max_bad_share: float = 0.01
    seen: int = 0
    counts: Counter = field(default_factory=Counter)
    path: Path | None = None
    enough: int = _FEWEST
    shards: int = 1
    total: int | None = None
    at_end: bool = False
    flag: str = ""
    _listed: set = field(default_factory=set)
    _files: set = field(default_factory=set)  # those of `_listed` that are no images
    _names: list[str] = field(default_factory=list)  # the first images of `_listed`, as the error names them
    _last: dict | None = None
    _lost: dict[str, float] = field(default_factory=dict)

    def add(self, seen: int, skipped: list[dict]) -> None:
        """Records `seen` images of which `skipped` (see `skip_record`) were bad.

        Raises:
            BadDataError: once more than `max_bad_share` of at least `enough` images, or of the shards, were bad; each
                counts once, however often it was skipped, and a row group as its share of its shard.
        """
        self.seen += seen
        self.note(skipped)
        files = [record for record in skipped if record["kind"] == UNREADABLE_FILE]
        self._lost |= {record["id"]: record.get("share_of_shard", 1.0) for record in files}
        lost = sum(self._lost.values()) / self.shards
        if files and lost > self.max_bad_share:
            raise BadDataError(
                f"{len(self._lost)} row group(s) of the {self.shards} shards, {lost:.1%} of the data, cannot be read "
                f"(the last one, {files[-1]['id']}: {files[-1]['detail']}), "
                f"more than the allowed share {self.max_bad_share:g}{self._advice()}."
            )
        if not skipped:
            return
        self._last = skipped[-1]
        if self.at_end and self.total:
            self._judge(self.total)  # so many are too many whatever comes
        elif self.seen >= self.enough:
            self._judge(min(self.seen, self.total or self.seen))

    def finish(self) -> None:
        """Checks the share at the end of the images, where it does not depend on when the bad ones came.

        Raises:
            BadDataError: as `add`.
        """
        if self._last is not None:
            self._judge(min(self.seen, self.total or self.seen))

    def _judge(self, images: int) -> None:
        bad = len(self._listed) - len(self._files)
        few = min(_FEW, images // 4) if self.max_bad_share else 0
        if self._last is not None and bad > max(few, self.max_bad_share * images):
            raise BadDataError(self._too_many(bad, images, self._last))

    def note(self, skipped: list[dict]) -> None:
        """Counts and lists records without checking the share: what was accepted before."""
        self.counts.update(record["kind"] for record in skipped)
        self._write([record for record in skipped if record["id"] not in self._listed])

    def _too_many(self, bad: int, images: int, last: dict) -> str:
        kinds = ", ".join(kind for kind, _count in self.counts.most_common())
        where = f", listed in {self.path}" if self.path else ""
        return (
            f"{bad} of {images} images cannot be read ({kinds}; the last one {last['path'] or last['id']}: "
            f"{last['detail']}), more than the allowed share {self.max_bad_share:g}{self._advice()}{where}: "
            f"{self._named(bad)}."
        )

    def _named(self, bad: int) -> str:
        """The first unreadable images, and how many more there are."""
        more = f" and {bad - len(self._names)} more" if bad > len(self._names) else ""
        return ", ".join(self._names) + more

    def _advice(self) -> str:
        return f" ({self.flag} allows more)" if self.flag else ""

    def _write(self, records: list[dict]) -> None:
        self._listed.update(record["id"] for record in records)
        self._files.update(record["id"] for record in records if record["kind"] == UNREADABLE_FILE)
        images = [record["path"] or record["id"] for record in records if record["kind"] != UNREADABLE_FILE]
        self._names += images[: _NAMED - len(self._names)]
        if self.path is None or not records:
            return
        with appended(self.path) as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    def state(self) -> dict:
        """What `load` needs to continue counting, listing and checking from here (JSON-able)."""
        return {
            "seen": self.seen,
            "counts": dict(self.counts),
            "listed": sorted(self._listed),
            "files": sorted(self._files),
            "names": list(self._names),
            "lost": dict(self._lost),
        }

    def load(self, state: dict) -> None:
        self.seen, self.counts = state["seen"], Counter(state["counts"])
        self._listed, self._lost = set(state.get("listed", ())), dict(state.get("lost", {}))
        self._files = set(state.get("files", self._lost))
        self._names = list(state.get("names", ()))


def skip_record(kind: str, identity: str, path: str | None, detail: str) -> dict:
    """One line of skipped.jsonl."""
    return {"kind": kind, "id": identity, "path": path, "detail": detail}


def in_short(record: dict) -> str:
    """A record in an error message: which image, and what is wrong with it."""
    return f"{record['path'] or record['id']} ({record['kind']}: {record['detail']})"
