# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A Hub on loopback, in memory: enough of the API for huggingface_hub, transformers, datasets and timm, with faults.

    with LoopbackHub(home=tmp_path / "home") as hub:
        hub.upload("me/photos", {"data/train-00000-of-00001.parquet": content}, kind="dataset")
        hub.fail("POST", "/commit/", status=500)                    # the next commit fails once
        hub.fail("PUT", "/lfs/", action="reset", times=2)           # two uploads are cut off
        hub.fail("GET", r"0000[1-4].*parquet", status=429, headers={"Retry-After": "1"}, skip=2)
        done = hub.run_python("from datasets import load_dataset; ...")     # a client in a process of its own
        hub.away(30)                                                # nobody listens for 30 s
        hub.files("me/model")                                       # what was pushed

Clients read HF_ENDPOINT when they are imported: run them in a process of their own with `hub.run_python`, or another
command with `env=os.environ | hub.environment()`; or give `HfApi(endpoint=hub.url, token=hub.token)`.
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
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


TOKEN = "hf_the_right_one"
LFS_SUFFIXES = (
    ".safetensors", ".bin", ".pt", ".pth", ".onnx", ".npz", ".parquet", ".arrow", ".png", ".jpg", ".tar", ".zip",
)  # fmt: skip
NO_LINGER = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST, so that the client sees a reset and no end


class Refused(Exception):
    """An answer that is not 200; `code` goes into X-Error-Code, from which the clients know what is missing."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass
class Fault:
    """What goes wrong with requests.

    Attributes:
        method: of the request, such as "GET".
        pattern: regular expression, searched in the path (without the query).
        status: answer with this status and `headers`, e.g. {"Retry-After": "1"}; None for an `action`.
        action: "reset" breaks the connection without an answer; "cut" sends half of the true answer's body, then ends;
            "hang" accepts the request and never answers.
        times: how many requests it hits; 0 says that it is over.
        skip: how many matching requests pass first.
        content: of the answer with a status, such as a page of HTML; None for the Hub's JSON.
        after: the request is carried out and only its answer lost, as with "cut", rather than not carried out.
    """

    method: str
    pattern: str
    status: int | None = None
    action: Literal["reset", "cut", "hang"] | None = None
    times: int = 1
    skip: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    after: bool = False

    def __post_init__(self):
        if (self.status is None) == (self.action is None):
            raise ValueError("a fault has either a status or an action")
        self.after = self.after or self.action == "cut"

    def hits(self, method: str, path: str) -> bool:
        """Whether this request fails; counts it."""
        if self.times == 0 or method != self.method or not re.search(self.pattern, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Repository:
    """Commits of one repository: (id, {path: content}, message); branches point at them."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, bytes], str]] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def add_commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        content = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        parts = [self.name, len(self.commits), message, sorted(content.items())]
        oid = hashlib.sha1(json.dumps(parts).encode()).hexdigest()
        self.commits.append((oid, dict(files), message))
        self.branches[branch] = oid
        return oid

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        oid = self.branches.get(revision, revision)
        for commit, files, _message in self.commits:
            if commit == oid:
                return commit, files
        raise Refused(404, f"there is no revision {revision}", "RevisionNotFound")


def is_lfs(path: str) -> bool:
    return path.endswith(LFS_SUFFIXES)


def oid_of(path: str, data: bytes) -> str:
    """What the Hub names a file by: sha256 for LFS, git's sha1 else."""
    if is_lfs(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def card_errors(content: str) -> list[str]:
    """What the Hub's validator says about the header of a README: the rules it publishes in its documentation."""
    match = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", content, re.DOTALL)
    if not match:
        return []
    try:
        header = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if not isinstance(header, dict):
        return ["the metadata must be an object"]
    errors = [f'"{key}" must be a string' for key in STRINGS if not isinstance(header.get(key, ""), str)]
    for key in LISTS:
        value = header.get(key, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            errors.append(f'"{key}" must be a list of strings')
        elif key in IDS:
            errors += [f'"{key}": {item} is not a repository id' for item in value if not re.fullmatch(IDS[key], item)]
    if "license" in header and header["license"] not in LICENSES:
        errors.append(f'"license" must be one of {LICENSES}')
    if "pipeline_tag" in header and header["pipeline_tag"] not in PIPELINES:
        errors.append(f'"pipeline_tag" must be one of {PIPELINES}')
    if any(len(tag) > 128 for tag in header.get("tags", []) if isinstance(tag, str)):
        errors.append('"tags" must be at most 128 characters long')
    nameless = header.get("license") == "other" and not header.get("license_name")
    errors += ['"license_name" is required where "license" is other'] * nameless
    return errors + index_errors(header.get("model-index", []))


STRINGS = ("license", "pipeline_tag", "library_name", "license_name", "license_link")
LISTS = ("tags", "datasets", "metrics", "base_model", "language")
IDS = {"datasets": r"([\w.-]+/)?[\w.-]+", "base_model": r"[\w.-]+/[\w.-]+"}
LICENSES = (
    "apache-2.0",
    "mit",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "bsd-3-clause",
    "other",
    "unknown",
)
PIPELINES = ("image-feature-extraction", "image-classification", "feature-extraction")


def index_errors(index: Any) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be a list']
    errors = []
    for number, model in enumerate(index):
        if not isinstance(model, dict) or not isinstance(model.get("name"), str) or not model["name"]:
            return [f'"model-index[{number}].name" is required']
        for place, result in enumerate(model.get("results", [])):
            where = f'"model-index[{number}].results[{place}]'
            for part, key in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
                if not isinstance(result.get(part, {}).get(key), str):
                    errors.append(f'{where}.{part}.{key}" is required')
            metrics = result.get("metrics")
            if not metrics or any("type" not in metric or metric.get("value") is None for metric in metrics):
                errors.append(f'{where}.metrics" needs a type and a value')
    return errors


class Server(ThreadingHTTPServer):
    """One thread a connection; knows the open ones, to drop them."""

    daemon_threads = True

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]):
        super().__init__(("127.0.0.1", port), handler)
        self.connections: set[socket.socket] = set()

    def process_request(self, request, client_address) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        for connection in list(self.connections):
            with suppress(OSError):  # it may have ended meanwhile
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address) -> None:
        """A connection that broke, by a fault or by the client, is no error of the server; all else is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class LoopbackHub:
    """The server and its state. `requests` lists (method, path) of everything asked, `commits` of a repository.

    `home` is the HF_HOME of the clients that get none of their own.
    """

    def __init__(self, home: Path | None = None):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.stored: dict[str, bytes] = {}  # LFS objects by sha256
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.RLock()
        self.token = TOKEN
        self.home = home
        self.port = 0
        self.server: Server | None = None
        self.over = threading.Event()  # ends the requests that are kept waiting

    def __enter__(self) -> "LoopbackHub":
        self.start()
        return self

    def __exit__(self, *_exception) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; after `stop` on the same port."""
        self.over.clear()
        self.server = Server(self.port, type("Handler", (Handler,), {"hub": self}))
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and drop those that are open."""
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.server.drop_connections()

    def away(self, seconds: float) -> None:
        """An outage: stop, and start again after `seconds`."""
        self.stop()
        time.sleep(seconds)
        self.start()

    def environment(self, home: Path | None = None, token: str | None = TOKEN) -> dict[str, str]:
        """Variables for a client process; `home` is its private HF_HOME, by default the hub's."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home or self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
        }
        return variables | ({"HF_TOKEN": token} if token else {})

    def run_python(self, code: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
        """Run code in a process that has this server as its Hub and no HF_* of ours; stdout and stderr are text."""
        prelude = "import datasets; datasets.config.USE_PARQUET_EXPORT = False\n"  # no variable turns it off
        outer = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return subprocess.run(
            [sys.executable, "-c", prelude + code, *arguments],
            env=outer | self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def fail(self, method: str, pattern: str, status: int | None = None, **details: Any) -> Fault:
        """Break the next requests whose path matches `pattern`; see Fault."""
        fault = Fault(method, pattern, status, **details)
        with self.lock:
            self.faults.append(fault)
        return fault

    def create(self, name: str, kind: str = "model", private: bool = False, gated: bool = False) -> Repository:
        with self.lock:
            repository = Repository(kind, name, private, gated)
            repository.add_commit("main", {}, "initial commit")
            self.repositories[kind, name] = repository
            return repository

    def upload(self, name: str, files: dict[str, bytes], kind: str = "model", **options: bool) -> str:
        """Put files into a repository, made with `options` if new, without the API; returns the commit."""
        repository = self.repositories.get((kind, name)) or self.create(name, kind, **options)
        return repository.add_commit("main", repository.at("main")[1] | files, "upload")

    def commits(self, name: str, kind: str = "model") -> list[tuple[str, dict[str, bytes], str]]:
        """Commits of a repository without the empty one of its creation."""
        return self.repositories[kind, name].commits[1:] if (kind, name) in self.repositories else []

    def files(self, name: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        return self.repositories[kind, name].at(revision)[1]

    def asked(self, method: str, path: str) -> Fault | None:
        """Note a request; the fault that it meets, if any."""
        with self.lock:
            self.requests.append((method, path))
            return next((fault for fault in self.faults if fault.hits(method, path)), None)


class Handler(BaseHTTPRequestHandler):
    """One connection. Routes are tried in order; a method answers with `send`, or raises Refused."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    ROUTES = (
        ("POST", r"/api/repos/create", "create_repository"),
        ("DELETE", r"/api/repos/delete", "delete_repository"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/(models|datasets|spaces)/(.+?)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/(models|datasets|spaces)/(.+?)/commit/([^/]+)", "commit"),
        ("POST", r"/api/(models|datasets|spaces)/(.+?)/branch/([^/]+)", "create_branch"),
        ("GET", r"/api/(models|datasets|spaces)/(.+?)/tree/([^/]+)(?:/(.+))?", "tree"),
        ("GET", r"/api/(models|datasets|spaces)/(.+?)/refs", "refs"),
        ("GET", r"/api/(models|datasets|spaces)/(.+?)/revision/([^/]+)", "info"),
        ("GET", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)", "info"),
        ("POST", r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/([0-9a-f]{64})", "lfs_put"),
        ("HEAD", r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
        ("GET", r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def log_message(self, *_arguments) -> None:
        """Quiet: pytest's output is for results."""

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.read_body()
        fault = self.hub.asked(self.command, url.path)
        if fault is None:
            self.send(*self.answer(url.path))
            return
        answer = self.answer(url.path) if fault.after else None
        if fault.action == "cut":
            self.send(*answer, cut=True)
        elif fault.action == "reset":
            self.reset()
        elif fault.action == "hang":
            self.hub.over.wait()
            self.reset()
        else:
            content = fault.content or {"error": f"injected {fault.status}"}
            self.send(fault.status, content, fault.headers)

    def answer(self, path: str) -> tuple[int, Any, dict[str, str]]:
        """Carry the request out: (status, content, headers)."""
        try:
            for method, pattern, name in self.ROUTES:
                if method == self.command and (match := re.fullmatch(pattern, path)):
                    return getattr(self, name)(*match.groups())
            raise Refused(404, f"no such page: {self.command} {path}")
        except Refused as refused:
            headers = {"X-Error-Code": refused.code} if refused.code else {}
            return refused.status, {"error": refused.message}, headers | {"X-Error-Message": refused.message}

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.connection.close()

    def send(self, status: int, content: Any, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if cut:
            body, self.close_connection = body[: len(body) // 2], True
        if self.command != "HEAD":
            self.wfile.write(body)

    # Access

    def authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def must_write(self) -> None:
        if not self.authorized():
            raise Refused(401, "Invalid username or password.")

    def repository(self, kind: str | None, name: str) -> Repository:
        kind = (kind or "models").rstrip("/").removesuffix("s")
        found = self.hub.repositories.get((kind, unquote(name)))
        if found is not None and (not found.private or self.authorized()):
            return found
        # As the Hub does: without a token it says 401 for what may be private, with a wrong one that there is nothing.
        raise Refused(404 if self.headers.get("Authorization") else 401, "Repository not found", "RepoNotFound")

    def content(self, kind: str | None, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        """(commit, files), which nobody gets of a gated repository."""
        repository = self.repository(kind, name)
        if repository.gated:
            raise Refused(403 if self.authorized() else 401, f"Access to {name} is restricted", "GatedRepo")
        return repository.at(unquote(revision))

    # Endpoints: (status, content, headers)

    def create_repository(self):
        self.must_write()
        given = json.loads(self.body)
        name = f"{given.get('organization') or 'me'}/{given['name']}"
        kind = given.get("type") or "model"
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        with self.hub.lock:
            if (kind, name) in self.hub.repositories:
                return 409, {"error": "You already created this repo", "url": url}, {}
            private = given.get("visibility") == "private" or bool(given.get("private"))
            self.hub.create(name, kind, private)
        return 200, {"url": url, "name": name}, {}

    def delete_repository(self):
        self.must_write()
        given = json.loads(self.body)
        name = f"{given.get('organization') or 'me'}/{given['name']}"
        self.hub.repositories.pop((given.get("type") or "model", name), None)
        return 200, {}, {}

    def whoami(self):
        self.must_write()
        return 200, {"type": "user", "name": "me", "orgs": [], "auth": {"accessToken": {"role": "write"}}}, {}

    def validate_yaml(self):
        errors = [{"message": message} for message in card_errors(json.loads(self.body)["content"])]
        return (400 if errors else 200), {"errors": errors, "warnings": []}, {}

    def create_branch(self, kind: str, name: str, branch: str):
        self.must_write()
        repository, branch = self.repository(kind, name), unquote(branch)
        if branch in repository.branches:
            return 409, {"error": f"branch {branch} exists"}, {}
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.branches[branch] = repository.at(start)[0]
        return 200, {}, {}

    def preupload(self, kind: str, name: str, revision: str):
        self.must_write()
        _oid, files = self.repository(kind, name).at(unquote(revision))
        answer = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            entry = {"path": path, "uploadMode": "lfs" if is_lfs(path) else "regular", "shouldIgnore": False}
            if path in files:
                entry["oid"] = oid_of(path, files[path])
            answer.append(entry)
        return 200, {"files": answer}, {}

    def lfs_batch(self, kind: str | None, name: str):
        self.must_write()
        self.repository(kind, name)
        answer = []
        for wanted in json.loads(self.body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.stored:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
            answer.append(entry)
        return 200, {"transfer": "basic", "objects": answer}, {"Content-Type": "application/vnd.git-lfs+json"}

    def lfs_put(self, oid: str):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content is not what its name says")
        self.hub.stored[oid] = self.body
        return 200, {}, {}

    def commit(self, kind: str, name: str, revision: str):
        self.must_write()
        repository, branch = self.repository(kind, name), unquote(revision)
        with self.hub.lock:
            head, files = repository.at(branch)
            files, summary = dict(files), ""
            for line in self.body.splitlines():
                operation = json.loads(line)
                key, value = operation["key"], operation["value"]
                if key == "header":
                    summary = value["summary"]
                    if value.get("parentCommit", head) != head:
                        raise Refused(412, "the branch has moved on")
                else:
                    self.apply(key, value, files)
            oid = repository.add_commit(branch, files, summary)
        return 200, {"commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "pullRequestUrl": None}, {}

    def apply(self, key: str, value: dict[str, Any], files: dict[str, bytes]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if value["oid"] not in self.hub.stored:
                raise Refused(400, f"{path} was not uploaded")
            files[path] = self.hub.stored[value["oid"]]
        elif key == "deletedFile":
            if path not in files:
                raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            del files[path]
        elif key == "deletedFolder":
            for inside in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
                del files[inside]

    def info(self, kind: str, name: str, revision: str = "main"):
        repository = self.repository(kind, name)
        oid, files = repository.at(unquote(revision))
        facts = {"id": repository.name, "sha": oid, "siblings": [{"rfilename": path} for path in sorted(files)]}
        facts |= {"private": repository.private, "gated": "auto" if repository.gated else False}
        return 200, facts | {"tags": [], "downloads": 0, "likes": 0}, {}

    def refs(self, kind: str, name: str):
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": oid}
            for branch, oid in self.repository(kind, name).branches.items()
        ]
        return 200, {"branches": branches, "converts": [], "tags": []}, {}

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None):
        _oid, files = self.content(kind, name, revision)
        prefix = unquote(folder) + "/" if folder else ""
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries, folders = [], set()
        for path, data in sorted(files.items()):
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                folders.add(prefix + "/".join(parts[:depth]))
            if recursive or len(parts) == 1:
                entries.append(self.file_entry(path, data))
        if prefix and not entries and not folders:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": name} for name in sorted(folders)]
        return 200, entries, {}

    @staticmethod
    def file_entry(path: str, data: bytes) -> dict[str, Any]:
        entry = {"type": "file", "oid": oid_of(path, data), "size": len(data), "path": path}
        if is_lfs(path):
            entry["lfs"] = {"oid": oid_of(path, data), "size": len(data), "pointerSize": 130}
        return entry

    def resolve(self, kind: str | None, name: str, revision: str, path: str):
        oid, files = self.content(kind, name, revision)
        path = unquote(path)
        if path not in files:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        data = files[path]
        headers = {"X-Repo-Commit": oid, "ETag": f'"{oid_of(path, data)}"', "Accept-Ranges": "bytes"}
        headers["Content-Type"] = "application/octet-stream"
        if not (match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))):
            return 200, data, headers
        first, last = match.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last), len(data) - 1) if first and last else len(data) - 1
        if start >= len(data):
            return 416, b"", headers | {"Content-Range": f"bytes */{len(data)}"}
        return 206, data[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
