# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What lies below a local folder: its images, its parquet, arrow and tar files, and what is neither, counted.

Nothing is left out without a word: whatever is not read stands in `Scan.left_out`.
"""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

from ...run_folder import RunFolder
from ..decode import has_image_suffix
from ..formats import HEIF_SUFFIXES, is_image_file, is_text, other_suffixes, shown
from ..skips import UNREADABLE_FILE, skip_record


# What the files of a suffix are opened as.
BUILDERS = {
    ".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset", ".tgz": "webdataset", ".tar.gz": "webdataset",
    ".tar.bz2": "webdataset", ".tar.xz": "webdataset",
}  # fmt: skip
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_RUN_RECORDS = ("run.json", "recipe.yaml")
_NAMED = 3  # examples in a message


@dataclass
class Scan:
    """What was found.

    Attributes:
        images: (path below the folder, path) of every image, files of a folder before its folders, each by name.
        files: the same of the files of each builder.
        metadata: the same of tables of labels.
        others: number of other files by suffix.
        links: links to folders that are read already, or that lead nowhere.
        own: what this package wrote: run folders, and files of the run whose folder this is.
        unnamed: files and folders whose name is not UTF-8.
        special: pipes, devices and dangling links.
        closed: records of folders that cannot be read.
    """

    images: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    metadata: list[tuple[str, str]] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    closed: list[dict] = field(default_factory=list)

    def left_out(self, read: str) -> list[str]:
        """Sentences about all that is not read, where the kind `read` ("images", or a builder's) is."""
        others = Counter(self.others)
        if read != "images":
            others.update(_suffix(name) for name, _ in [*self.images, *self.metadata])
        for kind, files in self.files.items():
            if kind != read:
                others.update(_suffix(name) for name, _ in files)
        notes = [counted(others)] if others else []
        for names, one, many in (
            (self.own, "output of visreg", "outputs of visreg"),
            (self.links, "link to what is read already", "links to what is read already"),
            (self.unnamed, "name that is not UTF-8", "names that are not UTF-8"),
            (self.special, "pipe, device or dangling link", "pipes, devices or dangling links"),
        ):
            if names:
                notes.append(f"{len(names)} {one if len(names) == 1 else many} left out: {in_short(names)}")
        if self.closed:
            notes.append(f"{len(self.closed)} folders cannot be read: {in_short([r['path'] for r in self.closed])}")
        return notes


def counted(others: Counter) -> str:
    """`12 other files left out: 10 .heic, 2 without suffix (...)`."""
    total = sum(others.values())
    parts = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in others.most_common(5)]
    text = f"{total:,} other file{'s' if total > 1 else ''} left out: {', '.join(parts)}"
    text += ", ..." if len(others) > len(parts) else ""
    if any(suffix in HEIF_SUFFIXES for suffix in others):
        text += " (`pip install pillow-heif` makes HEIC readable)"
    if any(suffix in (".zip", ".7z", ".rar") for suffix in others):
        text += " (archives other than tar have to be unpacked)"
    return text


def in_short(names: list[str]) -> str:
    """The first names of a list, to be shown."""
    return ", ".join(map(shown, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def builder_of(name: str) -> str | None:
    """What a file is opened as, by the end of its name; None for what is no parquet, arrow or tar file."""
    name = name.lower()
    return next((kind for suffix, kind in BUILDERS.items() if name.endswith(suffix)), None)


def _suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name.lower())
    return ".tar" + suffix if stem.endswith(".tar") else suffix


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one; a link that leads in circles is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_regular(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def scan(folder: str) -> Scan:
    """Goes through a folder once. Files whose suffix says what they are are not opened.

    Links are followed, as they are the user's own; a folder that is reached twice is read where it lies, or where it
    is met first.

    Raises:
        OSError: the folder itself cannot be read.
    """
    return _Scanner(folder).run()


class _Scanner:
    """One scan of a folder.

    Attributes:
        kinds: "images", a builder, None for other files or "unknown" of each suffix that was met.
        roots: real paths of the folder and of where the links led that were followed; around: of what they lie in.
    """

    def __init__(self, folder: str):
        self.root, self.found = folder, Scan()
        self.kinds: dict[str, str | None] = {}
        self.roots: set[str] = set()
        self.around: set[str] = set()
        self._add_root(os.path.realpath(folder))

    def run(self) -> Scan:
        """All files of a folder before its folders, each by name."""
        waiting = [("", self.root)]
        while waiting:
            below, path = waiting.pop()
            entries = self._entries(below, path)
            folders = [entry for entry in entries if not self._file(entry, below)]
            folders = [entry for entry in folders if not entry.is_symlink() or self._leads_on(entry, below)]
            waiting += [(os.path.join(below, entry.name), entry.path) for entry in reversed(folders)]
        return self.found

    def _entries(self, below: str, path: str) -> list[os.DirEntry]:
        """What is not hidden and no run's, by name."""
        try:
            with os.scandir(path) as listing:
                entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            if not below:
                raise
            reason = os.strerror(error.errno or errno.EIO)
            self.found.closed.append(skip_record(UNREADABLE_FILE, below, path, reason))
            return []
        if not any(entry.name in _RUN_RECORDS for entry in entries) or not RunFolder(path).is_run():
            return entries
        if below:
            self.found.own.append(f"{below}{os.sep}")
            return []
        return list(self._without_own(entries))

    def _without_own(self, entries: list[os.DirEntry]) -> Iterator[os.DirEntry]:
        """The entries of a run's folder that are none of the run's."""
        run = RunFolder(self.root)
        own = {path.name for path in (*run.files(), *run.folders())}
        for entry in entries:
            if entry.name in own:
                self.found.own.append(entry.name)
            else:
                yield entry

    def _file(self, entry: os.DirEntry, below: str) -> bool:
        """Takes a file in; False for a folder, which is left to the caller."""
        name = os.path.join(below, entry.name)
        if not is_text(entry.name):
            self.found.unnamed.append(name)
            return True
        if is_folder(entry):
            return False
        if not _is_regular(entry):
            self.found.special.append(name)
            return True
        if entry.name in METADATA:
            self.found.metadata.append((name, entry.path))
            return True
        kind = self._kind(entry)
        if kind == "images":
            self.found.images.append((name, entry.path))
        elif kind is None:
            self.found.others[_suffix(name)] += 1
        else:
            self.found.files.setdefault(kind, []).append((name, entry.path))
        return True

    def _kind(self, entry: os.DirEntry) -> str | None:
        suffix = _suffix(entry.name)
        if suffix not in self.kinds:
            self.kinds[suffix] = "images" if has_image_suffix(entry.name) else BUILDERS.get(suffix, "unknown")
            if self.kinds[suffix] == "unknown" and f".{suffix.rpartition('.')[2]}" in other_suffixes():
                self.kinds[suffix] = None
        kind = self.kinds[suffix]
        if kind != "unknown":
            return kind
        return "images" if is_image_file(entry.path) else None

    def _leads_on(self, entry: os.DirEntry, below: str) -> bool:
        """Whether a link to a folder leads to one that is not read at its own place, or through another link."""
        real = os.path.realpath(entry.path)
        if real in self.around or any(folder in self.roots for folder in (real, *_parents(real))):
            self.found.links.append(os.path.join(below, entry.name))
            return False
        self._add_root(real)
        return True

    def _add_root(self, real: str) -> None:
        self.roots.add(real)
        self.around.update(_parents(real))


def _parents(path: str) -> list[str]:
    return list(map(str, PurePath(path).parents))
