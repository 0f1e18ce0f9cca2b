# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Commands and scripts in processes forked from one that has imported everything: 6 s less for each.

One server a pytest process, started at the first use. A child is forked before torch has computed anything, so it is
what a started process is, with one thread (bits depend on it). What a test asks of the start itself (import times,
a launcher, another HF_HOME, which libraries read once) is started as users start it.
"""

import atexit
import gc
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any


THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class ForkServer:
    """The process that forks, as pytest sees it."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        self.environment = os.environ | THREADS
        self.process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self.close)

    def run(self, request: dict[str, Any], limit: float) -> subprocess.CompletedProcess:
        """What a child that works off the request wrote, and its exit code; killed with its group after `limit` s."""
        with tempfile.TemporaryDirectory() as folder:
            written = [Path(folder) / name for name in ("out", "error")]
            self.process.stdin.write(json.dumps(request | {"written": list(map(str, written))}) + "\n")
            self.process.stdin.flush()
            pid = int(self.process.stdout.readline())
            timer = threading.Timer(limit, os.killpg, (pid, signal.SIGKILL))
            timer.start()
            code = int(self.process.stdout.readline())
            timer.cancel()
            out, error = (path.read_text(errors="replace") for path in written)
        return subprocess.CompletedProcess(request["words"], code, out, error)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@cache
def server(process: int) -> ForkServer:
    """The server of this process, by its id: a forked pytest has none of its own yet."""
    return ForkServer()


def run(
    *words: object,
    script: str | Path | None = None,
    cwd: str | Path | None = None,
    environment: dict[str, str] | None = None,
    file_size: int | None = None,
    ranks: int = 1,
    limit: float = 300,
) -> subprocess.CompletedProcess:
    """`visreg WORDS`, or a script with these words.

    Args:
        environment: more variables; none that huggingface_hub reads when it is imported.
        file_size: bytes that no file may grow beyond: what a full disk is to write().
        ranks: processes with the variables that torchrun gives them; the exit code is the largest.
        limit: seconds after which it is killed.
    """
    forks = server(os.getpid())
    variables = os.environ | THREADS | (environment or {})
    changed = [
        name
        for name in variables.keys() | forks.environment.keys()
        if name.startswith("HF_") and variables.get(name) != forks.environment.get(name)
    ]
    if changed:
        raise ValueError(f"{', '.join(changed)}: read at the start of a process, which this is not")
    request = {"words": list(map(str, words)), "script": script and str(script), "cwd": str(cwd or Path.cwd())}
    return forks.run(request | {"variables": variables, "file_size": file_size, "ranks": ranks}, limit)


def import_everything(*more: str) -> None:
    """Every module of this package, what its commands import when they run, and the modules named."""
    import importlib

    import visreg_hub_cards
    import visreg_training

    names = ["accelerate.state", "datasets.distributed", "matplotlib.pyplot", "scipy.optimize", "sklearn.datasets"]
    names += ["timm", "torchvision.transforms.v2", "transformers.models.auto.modeling_auto", *more]
    for package in (visreg_hub_cards, visreg_training):
        for folder in package.__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                if path.stem != "__init__" and "kernels" not in str(path.relative_to(folder)):
                    names.append(".".join((package.__name__, *path.relative_to(folder).with_suffix("").parts)))
    for name in names:
        importlib.import_module(name)


def fork(work: Callable[[], object], out: Path, error: Path | None = None, grouped: bool = True) -> int:
    """Start a child that does some work and ends as a Python process does.

    Args:
        out: file that it writes to.
        error: file for what is not an answer; default the same.
        grouped: it leads a process group of its own.

    Returns:
        Its process id, and its group's.
    """
    pid = os.fork()
    if pid == 0:
        if grouped:
            os.setpgid(0, 0)
        os._exit(ended(work, out, error or out))
    if grouped:
        os.setpgid(pid, pid)
    return pid


def ended(work: Callable[[], object], out: Path, error: Path) -> int:
    """The exit code of a child. Python's own end would free module by module what it shares with its parent, for
    2 s; what is registered for the end is done.
    """
    code: int | str | None = 0
    try:
        for number, path in ((1, out), (2, error)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        work()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def serve() -> None:
    """A line with the child's process id and one with its exit code for each request, until the input is closed."""
    import_everything()
    names = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    if len(names - {"jemalloc_bg_thd"}) > 1:  # of pyarrow's allocator, which is made to be forked
        raise RuntimeError(f"a process with threads is not one to fork: {names}")
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        work = work_off if request["ranks"] == 1 else work_off_on_ranks
        pid = fork(partial(work, request), *map(Path, request["written"]))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def work_off_on_ranks(request: dict[str, Any]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in range(request["ranks"]):
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}
        place |= {"WORLD_SIZE": request["ranks"], "LOCAL_WORLD_SIZE": request["ranks"]}
        variables = request["variables"] | {name: str(value) for name, value in place.items()}
        written = map(Path, request["written"])
        pids.append(fork(partial(work_off, request | {"variables": variables}), *written, grouped=False))
    sys.exit(max(abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) for pid in pids))


def work_off(request: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(request["variables"])
    os.chdir(request["cwd"])
    if request["file_size"] is not None:
        limit_files(request["file_size"])
    if request["script"] is None:
        from visreg_training.cli import main

        sys.argv = ["visreg", *request["words"]]
        main()
    else:
        sys.argv = [request["script"], *request["words"]]
        sys.path[:1] = [str(Path(request["script"]).parent), str(Path(__file__).parent.parent)]
        runpy.run_path(request["script"], run_name="__main__")


def limit_files(size: int) -> None:
    """No file of this process may grow beyond so many bytes: what a full disk is to write()."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


if __name__ == "__main__":
    serve()
