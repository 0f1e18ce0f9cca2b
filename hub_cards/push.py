# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Runs to the Hub: one commit with everything, or none. What did not change is not sent again."""

import fnmatch
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from visreg_training.errors import one_line
from visreg_training.locks import Lock, remove_leftovers
from visreg_training.retry import PUSH_PATIENCE, http_status, is_transient, with_retries

from .card import check_card
from .license import asked_license, is_hub_id
from .markup import plain
from .staging import stage


# What an earlier push may have left: weights in shards, a timm file, results of other weights, an older checkpoint. A
# push deletes those of them that it does not write, and nothing else.
REPLACED = (
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "timm/model.safetensors",
    "timm/config.json", "adapter/adapter_*", "evaluation/*.json",
)  # fmt: skip
REPLACED_CHECKPOINTS = "checkpoints/step-*/*"
_STAGING = ".push-"


class PushResult(NamedTuple):
    """What a push did, or would do.

    Attributes:
        repo_id, revision: where.
        commit: id of the new commit, or of the newest one if nothing had changed; None in a dry run.
        url: of that commit.
        changed: whether this push made it.
        files: (path in the repository, bytes) of everything that belongs to this push.
        deleted: paths of older weights that it removed.
        left_out: paths in the run that are none of a checkpoint's files, and stay here.
    """

    repo_id: str
    revision: str
    commit: str | None
    url: str | None
    changed: bool
    files: list[tuple[str, int]]
    deleted: list[str]
    left_out: list[str]

    def lines(self) -> list[str]:
        """What happened, for people."""
        named = [f"left out, because a checkpoint has no such file: {plain(path)}" for path in self.left_out]
        return [*named, *self._lines()]

    def _lines(self) -> list[str]:
        if self.commit is None:
            rows = [f"{size:>14,}  {path}" for path, size in self.files]
            total = sum(size for _path, size in self.files)
            return [*rows, f"{total:>14,}  bytes in {len(rows)} files would go to {self.repo_id}; nothing was sent"]
        if not self.changed:
            return [f"{self.repo_id} ({self.revision}) holds all of this already: no commit"]
        return [f"pushed {len(self.files)} files to {self.url}"]


def push_run(
    run: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    include_pretraining: bool = False,
    timm: bool = False,
    dry_run: bool = False,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    api: HfApi | None = None,
) -> PushResult:
    """Pushes the model of a run (or of a checkpoint directory, or the newest checkpoint of a run under way).

    Args:
        run: folder of a run, or a directory that AutoModel reads.
        repo_id: `organization/name`; the repository is created if it is not there.
        private: whether a new repository is private; a public one that is there is refused.
        revision: branch, created if it is not there; default main.
        include_pretraining: also the projector, and optimizer and position of the newest checkpoint, to go on from.
            Its state.json goes up as it is, local folders included, because the continuation compares it.
        timm: also the backbone in timm's format.
        dry_run: only say what would go up; the Hub is not asked.
        license, license_name, license_link: see `write_card`.
        api: of huggingface_hub; default: endpoint and token of the environment.

    Raises:
        ValueError: something about the run, the name, the license or the access is wrong; the message says what.
        ConnectionError: the Hub stayed away through all attempts. Its repository is as it was before.
    """
    run = Path(run)
    if not is_hub_id(repo_id):
        raise ValueError(f"'{repo_id}' is not a name on the Hub: it has the form organization/name.")
    asked = asked_license(license, license_name, license_link)
    with staging_folder(run) as staging:
        card, left_out = stage(
            run,
            staging,
            repo_id,
            license=asked,
            include_pretraining=include_pretraining,
            timm=timm,
        )
        if problems := check_card(card):
            hint = "; --license says under which" if any("license" in problem for problem in problems) else ""
            raise ValueError(f"the card of {run} is not ready: {'; '.join(problems)}{hint}.")
        paths = sorted(path for path in staging.rglob("*") if path.is_file())
        files = {path.relative_to(staging).as_posix(): path for path in paths}
        replaced = (*REPLACED, REPLACED_CHECKPOINTS) if include_pretraining else REPLACED
        kept_here = [os.path.relpath(path, run) for path in left_out]
        upload = Upload(api or HfApi(), repo_id, revision or "main", private, files, replaced, kept_here)
        return upload.result(None, None, False, []) if dry_run else upload.send()


@contextmanager
def staging_folder(run: Path) -> Iterator[Path]:
    """A folder for what goes up, in the run, so that weights can be linked; a lock says that it is in use.

    What pushes before this one left there when they were killed is removed.
    """
    if run.is_dir():
        remove_leftovers(run.glob(f"{_STAGING}*"))
    with tempfile.TemporaryDirectory(prefix=_STAGING, dir=run if run.is_dir() else None) as folder:
        lock = Lock(Path(folder))
        lock.take()
        try:
            yield Path(folder)
        finally:
            lock.release()


def try_push(run: Path, repo_id: str, **options) -> str:
    """`push_run` for a training, which no failure may end: returns one line that says how it went."""
    try:
        return push_run(run, repo_id, **options).lines()[-1]
    except Exception as error:  # whatever it is, the run is on the disk and can be pushed later
        return f"not pushed: {one_line(error)} To try again: visreg push --model {run} --repo_id {repo_id}"


@dataclass
class Upload:
    """Files on their way into one branch of one repository."""

    api: HfApi
    repo_id: str
    revision: str
    private: bool
    files: dict[str, Path]
    replaced: tuple[str, ...]
    left_out: list[str] = field(default_factory=list)
    before: str | None = field(default=None, init=False)  # the newest commit when this push began

    def send(self) -> PushResult:
        """Raises ConnectionError if the Hub stays away, ValueError if it refuses."""
        try:
            with_retries(self.prepare, f"Opening {self.repo_id}", PUSH_PATIENCE)
            return with_retries(self.commit, f"Pushing to {self.repo_id}", PUSH_PATIENCE)
        except Exception as error:
            if is_transient(error):
                raise ConnectionError(f"the Hub is away ({one_line(error, 200)}).") from error
            if isinstance(error, HfHubHTTPError):
                raise ValueError(self.refusal(error)) from error
            if type(error) is ValueError and not error.__cause__:  # what `prepare` itself refuses
                raise
            if isinstance(error, MemoryError):
                raise
            said = f"{type(error).__name__}: {one_line(error, 200)}"
            raise ValueError(f"the Hub's answer to the push to {self.repo_id} is none of a Hub ({said}).") from error

    def prepare(self) -> None:
        """The repository and the branch, created if need be."""
        self.api.create_repo(self.repo_id, private=self.private, exist_ok=True)
        if self.private and not self.api.repo_info(self.repo_id).private:
            raise ValueError(
                f"{self.repo_id} is there and public: make it private on the Hub first, or choose another name."
            )
        if self.revision != "main":
            self.api.create_branch(self.repo_id, branch=self.revision, exist_ok=True)
        self.before = self.api.repo_info(self.repo_id, revision=self.revision).sha

    def commit(self) -> PushResult:
        """One commit. If its answer was lost and this is called again, it finds the work done and makes no second."""
        there = self.api.list_repo_files(self.repo_id, revision=self.revision)
        stale = [path for path in there if path not in self.files and self.is_replaced(path)]
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in self.files.items()]
        operations += [CommitOperationDelete(path_in_repo=path) for path in stale]
        info = self.api.create_commit(
            self.repo_id, operations, commit_message="Upload VISReg model", revision=self.revision
        )
        return self.result(info.oid, info.commit_url, info.oid != self.before, stale)

    def is_replaced(self, path: str) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for pattern in self.replaced)

    def result(self, commit: str | None, url: str | None, changed: bool, deleted: list[str]) -> PushResult:
        sizes = [(name, path.stat().st_size) for name, path in self.files.items()]
        return PushResult(self.repo_id, self.revision, commit, url, changed, sizes, deleted, self.left_out)

    def refusal(self, error: HfHubHTTPError) -> str:
        """One line on an error that waiting does not mend."""
        status = http_status(error)
        if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
            return (
                f"the Hub refuses access to {self.repo_id} ({status}): `hf auth login` as a user who may write to it."
            )
        return f"the Hub refused the push to {self.repo_id} ({status}): {error.server_message or error}"
