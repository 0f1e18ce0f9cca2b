# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face Hub on loopback, for end-to-end tests: repositories in memory, uploads, downloads, streaming, faults
on demand.

    with LoopbackHub() as hub:
        hub.create("datasets", "me/photos", {"data/train-00000-of-00001.parquet": content})
        hub.inject(Fault(r"GET .*parquet", status=500, times=3))
        result = hub.run_python("from datasets import load_dataset; ...")     # a real client in its own process
        hub.files("models", "me/model")                                       # what was pushed

Clients read HF_ENDPOINT when they are imported, so they run in processes of their own, with `hub.environment()`.
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


TOKEN = "hf_loopback"
_LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".parquet", ".arrow", ".tar", ".png", ".jpg", ".npz")


@dataclass
class Fault:
    """Something that goes wrong with requests.

    Attributes:
        pattern: regular expression, searched in `METHOD /path`.
        status: answer with this status (and `headers`), or None for another kind.
        reset: close the connection with a TCP reset, without an answer.
        cut: send only this share of the body, then close.
        times: how many requests it hits; then it is over.
        after: how many matching requests pass first.
        headers: of the answer, e.g. {"Retry-After": "1"}.
    """

    pattern: str
    status: int | None = None
    reset: bool = False
    cut: float | None = None
    times: int = 1
    after: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    hits: int = 0


@dataclass
class Repository:
    """Commits, newest last: (oid, title, {path: content})."""

    private: bool = False
    gated: bool = False
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)

    def commit(self, title: str, files: dict[str, bytes], branch: str = "main") -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {title} {sorted(files)}".encode()).hexdigest()
        self.commits.append((oid, title, files))
        self.refs[branch] = oid
        return oid

    def resolve(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        wanted = self.refs.get(revision, revision)
        return next(((oid, files) for oid, _, files in self.commits if oid == wanted), None)


class LoopbackHub:
    """The server; see the module's docstring. Thread-safe enough for tests: one lock around each change."""

    def __init__(self, home: str | Path | None = None):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.stored: dict[str, bytes] = {}  # LFS objects by sha256
        self.requests: list[str] = []
        self.home = home
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    # --- life ---

    def __enter__(self) -> "LoopbackHub":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Listens; after a `stop`, on the same port."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        ThreadingHTTPServer.allow_reuse_address = True
        ThreadingHTTPServer.daemon_threads = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.open_connections = set()
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuses connections and drops those that are open."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for connection in list(server.open_connections):
            _reset(connection)

    def away(self, seconds: float) -> threading.Thread:
        """Stops, and starts again after `seconds`; returns the thread to join."""
        self.stop()

        def come_back() -> None:
            time.sleep(seconds)
            self.start()

        thread = threading.Thread(target=come_back, daemon=True)
        thread.start()
        return thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- content ---

    def create(self, kind: str, name: str, files: dict[str, bytes] | None = None, **options) -> Repository:
        """Adds a repository; kind is `models` or `datasets`, options are `private` and `gated`."""
        repository = Repository(**options)
        repository.commit("initial commit", dict(files or {}))
        repository.lfs.update(path for path in files or {} if path.endswith(_LFS_SUFFIXES))
        self.repositories[kind, name] = repository
        return repository

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """{path: content} of a revision."""
        return self.repositories[kind, name].resolve(revision)[1]

    def inject(self, *faults: Fault) -> None:
        with self._lock:
            self._faults += faults

    def fault_for(self, request: str) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    if fault.after > 0:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    fault.hits += 1
                    return fault
        return None

    # --- clients ---

    def environment(self, **more: str) -> dict[str, str]:
        """Environment of a client process. Needs `home`, a folder for its caches."""
        base = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        hf = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_TOKEN": TOKEN,
        }
        return base | hf | more

    def run_python(
        self, code: str, *arguments: str, timeout: float = 300, **environment: str
    ) -> subprocess.CompletedProcess:
        """Runs code in a process that has this server as its Hub; stdout and stderr are text."""
        prelude = "import datasets; datasets.config.USE_PARQUET_EXPORT = False\n"
        return subprocess.run(
            [sys.executable, "-c", prelude + code, *arguments],
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def _reset(connection: socket.socket) -> None:
    """Closes with RST, so that the client sees a reset rather than an end."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class _Answer(Exception):
    """Ends a request with an error."""

    def __init__(self, status: int, code: str = "", message: str = ""):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message or code


class _Handler(BaseHTTPRequestHandler):
    """Requests of huggingface_hub and datasets. Errors carry X-Error-Code, without which clients do not know them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: LoopbackHub

    _ROUTES = (
        ("GET", r"^/api/whoami-v2$", "_whoami"),
        ("POST", r"^/api/repos/create$", "_create"),
        ("DELETE", r"^/api/repos/delete$", "_delete"),
        ("POST", r"^/api/validate-yaml$", "_validate"),
        ("POST", r"^/(?P<kind>api/models|api/datasets)/(?P<name>[^/]+/[^/]+)/preupload/(?P<rev>.+)$", "_preupload"),
        ("POST", r"^/(?P<kind>api/models|api/datasets)/(?P<name>[^/]+/[^/]+)/commit/(?P<rev>.+)$", "_commit"),
        (
            "GET",
            r"^/(?P<kind>api/models|api/datasets)/(?P<name>[^/]+/[^/]+)/tree/(?P<rev>[^/]+)(/(?P<path>.*))?$",
            "_tree",
        ),
        ("GET", r"^/(?P<kind>api/models|api/datasets)/(?P<name>[^/]+/[^/]+)/refs$", "_refs"),
        ("GET", r"^/(?P<kind>api/models|api/datasets)/(?P<name>[^/]+/[^/]+)(/revision/(?P<rev>.+))?$", "_info"),
        ("POST", r"^/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch$", "_lfs_batch"),
        ("PUT", r"^/lfs/(?P<oid>[0-9a-f]{64})$", "_lfs_put"),
        ("POST", r"^/lfs/verify$", "_validate"),
        ("GET", r"^/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)$", "_resolve"),
        ("HEAD", r"^/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)$", "_resolve"),
    )

    def setup(self) -> None:
        super().setup()
        self.server.open_connections.add(self.connection)

    def finish(self) -> None:
        self.server.open_connections.discard(self.connection)
        with suppress(OSError):  # the client, or a fault, may have closed it
            super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError, OSError):
            self.close_connection = True

    def log_message(self, *_) -> None:
        """Silence: pytest's output is for results."""

    def _serve(self) -> None:
        body = self._read_body()
        fault = self.hub.fault_for(f"{self.command} {self.path}")
        self._fault = fault
        if fault is not None and fault.reset:
            self.close_connection = True
            _reset(self.connection)
            return
        if fault is not None and fault.status is not None:
            self._send(fault.status, b'{"error": "injected"}', fault.headers)
            return
        try:
            self._route(body)
        except _Answer as answer:
            content = json.dumps({"error": answer.message}).encode()
            self._send(answer.status, content, {"X-Error-Code": answer.code, "X-Error-Message": answer.message})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _route(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        for method, pattern, name in self._ROUTES:
            match = re.match(pattern, path)
            if method == self.command and match:
                getattr(self, name)(body, **match.groupdict())
                return
        raise _Answer(404, "EntryNotFound", f"no route for {self.command} {path}")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Length": str(len(content)), **(headers or {})}
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = getattr(self, "_fault", None)
        if fault is not None and fault.cut is not None:
            self.wfile.write(content[: int(len(content) * fault.cut)])
            self.wfile.flush()
            self.close_connection = True
            _reset(self.connection)
            return
        self.wfile.write(content)

    def _json(self, value, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _repository(self, kind: str | None, name: str, content: bool = False) -> Repository:
        """The repository, if the token may see it (and, for `content`, a gated one's files)."""
        kind = "datasets" if kind and "datasets" in kind else "models"
        repository = self.hub.repositories.get((kind, name))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None:
            raise _Answer(404 if token else 401, "RepoNotFound", "Repository not found")
        if repository.private and token != TOKEN:
            raise _Answer(404 if token else 401, "RepoNotFound", "Repository not found")
        if repository.gated and content:
            raise _Answer(403 if token else 401, "GatedRepo", f"Access to {name} is restricted")
        return repository

    def _revision(self, repository: Repository, revision: str | None) -> tuple[str, dict[str, bytes]]:
        found = repository.resolve(revision or "main")
        if found is None:
            raise _Answer(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    # --- the API ---

    def _whoami(self, body) -> None:
        self._json({"type": "user", "name": "me", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def _create(self, body) -> None:
        request = json.loads(body)
        name = f"{request.get('organization') or 'me'}/{request['name']}"
        kind = request.get("type", "model") + "s"
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{name}"
        with self.hub._lock:
            if (kind, name) in self.hub.repositories:
                self._json({"url": url, "error": "You already created this repo"}, 409)
                return
            private = request.get("private") or request.get("visibility") == "private"
            self.hub.create(kind, name, private=bool(private))
        self._json({"url": url, "name": name})

    def _delete(self, body) -> None:
        request = json.loads(body)
        name = f"{request.get('organization') or 'me'}/{request['name']}"
        self.hub.repositories.pop((request.get("type", "model") + "s", name), None)
        self._send(200)

    def _validate(self, body) -> None:
        self._json({"errors": [], "warnings": []})

    def _info(self, body, kind, name, rev) -> None:
        repository = self._repository(kind, name)
        oid, files = self._revision(repository, rev)
        siblings = [{"rfilename": path} for path in files]
        facts = {"id": name, "sha": oid, "private": repository.private, "gated": "auto" if repository.gated else False}
        self._json({**facts, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})

    def _refs(self, body, kind, name) -> None:
        refs = self._repository(kind, name).refs
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": oid} for branch, oid in refs.items()
        ]
        self._json({"branches": branches, "converts": [], "tags": []})

    def _tree(self, body, kind, name, rev, path) -> None:
        repository = self._repository(kind, name, content=True)
        _, files = self._revision(repository, rev)
        prefix = f"{path.strip('/')}/" if path else ""
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("true", "1")
        entries, folders = [], set()
        for file, content in sorted(files.items()):
            if not file.startswith(prefix):
                continue
            parts = file[len(prefix) :].split("/")
            folders.update(
                prefix + "/".join(parts[:depth]) for depth in range(1, len(parts)) if recursive or depth == 1
            )
            if recursive or len(parts) == 1:
                entries.append(_tree_entry(repository, file, content))
        if prefix and not entries and not folders:
            raise _Answer(404, "EntryNotFound", f"no folder {path}")
        folders = [
            {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "path": name, "size": 0}
            for name in sorted(folders)
        ]
        self._json(folders + entries)

    def _preupload(self, body, kind, name, rev) -> None:
        repository = self._repository(kind, name)
        _, files = self._revision(repository, rev)
        answers = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith(_LFS_SUFFIXES) or file["size"] > 10_000_000
            answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if file["path"] in files:
                answer["oid"] = _oid(files[file["path"]], large)
            answers.append(answer)
        self._json({"files": answers})

    def _lfs_batch(self, body, kind, name) -> None:
        self._repository(kind, name)
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.stored:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def _lfs_put(self, body, oid) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Answer(400, "BadRequest", "content does not match its oid")
        self.hub.stored[oid] = body
        self._send(200)

    def _commit(self, body, kind, name, rev) -> None:
        repository = self._repository(kind, name)
        if self.headers.get("Authorization", "").removeprefix("Bearer ") != TOKEN:
            raise _Answer(403, "Forbidden", "a token with write access is needed")
        with self.hub._lock:
            parent, files = self._revision(repository, rev)
            files, title = dict(files), "commit"
            for line in body.splitlines():
                item = json.loads(line)
                key, value = item["key"], item["value"]
                if key == "header":
                    title = value.get("summary", title)
                    if value.get("parentCommit") not in (None, parent):
                        raise _Answer(
                            412, "PreconditionFailed", "A commit has happened since. Please refresh and try again."
                        )
                elif key == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif key == "lfsFile":
                    files[value["path"]] = self.hub.stored[value["oid"]]
                    repository.lfs.add(value["path"])
                elif key == "deletedFile":
                    files.pop(value["path"], None)
                elif key == "deletedFolder":
                    files = {path: content for path, content in files.items() if not path.startswith(value["path"])}
            oid = repository.commit(title, files, rev)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def _resolve(self, body, kind, name, rev, path) -> None:
        repository = self._repository(kind, name, content=True)
        oid, files = self._revision(repository, rev)
        if path not in files:
            raise _Answer(404, "EntryNotFound", f"no file {path}")
        content = files[path]
        headers = {
            "X-Repo-Commit": oid,
            "ETag": f'"{_oid(content, path in repository.lfs)}"',
            "Accept-Ranges": "bytes",
        }
        match = re.match(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            self._send(200, content, headers)
            return
        first, last = match.groups()
        start = int(first) if first else max(0, len(content) - int(last))
        end = min(int(last), len(content) - 1) if first and last else len(content) - 1
        if start >= len(content):
            self._send(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(206, content[start : end + 1], headers)


def _oid(content: bytes, large: bool) -> str:
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _tree_entry(repository: Repository, path: str, content: bytes) -> dict:
    entry = {"type": "file", "oid": _oid(content, False), "size": len(content), "path": path}
    if path in repository.lfs:
        entry["lfs"] = {"oid": _oid(content, True), "size": len(content), "pointerSize": 134}
    return entry
