# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Faults while streaming: the data that come are exactly those that would have come. A real server, real clients in
their own process.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest
from datasets import Dataset, Features, Image
from pyarrow import parquet

from helpers.loopback_hub import LoopbackHub


STREAM = """
import json, logging, sys
logging.basicConfig(level=logging.WARNING)
from visreg_training.data import MultiCrop, PretrainingLoader, open_stream
source = open_stream("me/photos")
batches = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=10, seed=1, num_workers=int(sys.argv[1]))
made = [next(batches) for _ in range(24)]
pixels = sum(int(batch.views[0].sum()) for batch in made)
print(json.dumps([[batch.ids for batch in made], pixels, dict(batches.skipped)]))
batches.close()
"""

OPEN = """
import os
import subprocess
import sys
from visreg_training.data import open_stream
try:
    print(open_stream(sys.argv[1], revision=sys.argv[2] or None, split=sys.argv[3] or "train").revision)
except ValueError as error:
    print("ValueError:", error)
"""


@pytest.fixture
def hub(tmp_path, five_shards):
    with LoopbackHub(tmp_path / "home") as hub:
        hub.upload("me/photos", _files(five_shards), kind="dataset")
        yield hub


def _files(folder) -> dict[str, bytes]:
    return {f"data/{path.name}": path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory, five_shards) -> list:
    """What two epochs are without a fault."""
    with LoopbackHub(tmp_path_factory.mktemp("home")) as hub:
        hub.upload("me/photos", _files(five_shards), kind="dataset")
        return stream(hub)[0]


def stream(hub: LoopbackHub, workers: int = 0) -> tuple[list, str]:
    """Two epochs in a real client: (what was read, stderr)."""
    done = hub.run_python(STREAM, str(workers))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
def test_without_a_network_the_cached_revision_is_read_and_named(hub):
    code = (
        "import sys; from visreg_training.data import open_stream\n"
        "try: source = open_stream('me/photos', streaming=False, revision=sys.argv[1] if sys.argv[1:] else None)\n"
        "except ValueError as error: sys.exit(str(error))\n"
        "print(source.revision, source.num_examples, source.fingerprint)"
    )
    online = hub.run_python(code)
    offline = [sys.executable, "-c", code]
    environment = os.environ | hub.environment() | {"HF_HUB_OFFLINE": "1"}
    again, other = (
        subprocess.run([*offline, *more], env=environment, capture_output=True, text=True) for more in ([], ["branch"])
    )
    assert again.stdout == online.stdout and again.stdout.split()[1] == "120", again.stderr
    revision = online.stdout.split()[0]
    assert f"me/photos is read from the cache, at revision {revision}" in again.stderr
    assert other.returncode == 1 and f"give --revision {revision}" in other.stderr


def test_faults_change_nothing(hub, expected):
    """At opening: a 503 and a 429 where nobody else tries again. While reading: 500s, more of them in a row than the
    libraries bear, 429 with Retry-After, resets, a 403, bodies cut in the middle.
    """
    assert len({name for batch in expected[0] for name in batch}) == 120 and expected[2] == {}
    faults = [
        hub.fail("GET", "/api/datasets/me/photos/revision", status=503),
        hub.fail("GET", "/api/datasets/me/photos/tree", status=429, headers={"Retry-After": "1"}),
        hub.fail("GET", "00000.*parquet", status=500, times=2, skip=1),
        hub.fail("GET", "00001.*parquet", status=429, times=2, headers={"Retry-After": "1"}),
        hub.fail("GET", "00002.*parquet", action="reset", times=2),
        hub.fail("GET", "00002.*parquet", status=403, skip=1),  # a signed address that has expired
        hub.fail("GET", "00003.*parquet", action="cut", times=2, skip=2),
    ]
    found, _ = stream(hub)
    assert found == expected
    assert all(fault.times == 0 for fault in faults), faults


@pytest.mark.slow
def test_a_server_that_fails_longer_than_the_libraries_bear(hub, expected):
    """Six 500s in a row end huggingface_hub and datasets after 23 s; the stream is rebuilt from its position."""
    fault = hub.fail("GET", "00003.*parquet", status=500, times=7, skip=2)
    found, errors = stream(hub, workers=1)
    assert found == expected
    assert fault.times == 0 and "trying again" in errors


@pytest.mark.slow
def test_a_server_that_is_away_for_half_a_minute(hub, expected):
    before = []

    def leave_in_the_middle() -> None:
        while sum("parquet" in path for _, path in hub.requests) < 8:
            time.sleep(0.01)
        before.append(len(hub.requests))
        hub.away(30)

    leaving = threading.Thread(target=leave_in_the_middle, daemon=True)
    leaving.start()
    found, _ = stream(hub)
    leaving.join()
    assert found == expected
    assert any("parquet" in path for _, path in hub.requests[before[0] :])


def test_the_revision_is_pinned_and_mistakes_are_one_line(hub, five_shards):
    """One client process an answer: what it says about the missing, the private and the gated."""
    hub.upload("me/gated", hub.files("me/photos", kind="dataset"), kind="dataset", gated=True)
    first = hub.repositories["dataset", "me/photos"].branches["main"]
    calls = [
        ("me/photos", "", ""),
        ("me/nothing", "", ""),
        ("me/gated", "", ""),
        ("me/photos", "v9", ""),
        ("me/photos", "", "test"),
    ]
    script = "\n".join(f"sys.argv = ['-', {call[0]!r}, {call[1]!r}, {call[2]!r}]\n{OPEN}" for call in calls)
    done = hub.run_python("import sys\n" + script)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 5, lines
    assert lines[0] == first
    for line, message in zip(
        lines[1:],
        ["no data set 'me/nothing'", "me/gated is gated", "no revision 'v9'", "splits are train"],
        strict=True,
    ):
        assert line.startswith("ValueError:") and re.search(message, line), line


def test_a_refusal_in_the_middle_ends_the_run_with_one_line(hub):
    hub.fail("GET", "0000[1-4].*parquet", status=403, times=1000)
    done = hub.run_python(STREAM, "1")
    assert done.returncode != 0
    assert re.search(r"StreamLostError: Reading shard \d .* was refused", done.stderr.strip().splitlines()[-1])


NAMED = """
import json, sys
from visreg_training.data import open_stream
source = open_stream(sys.argv[1], streaming=sys.argv[2] == "stream")
print(json.dumps([[image.size, name] for image, _label, name in source.examples(max_bad_share=1.0)]))
"""


@pytest.mark.parametrize("how", ["stream", "download"])
def test_a_table_of_the_hub_names_no_file_of_this_machine(tmp_path, photo, encode_image, how):
    """Of three images one is held, one is named by a path of the user's, one by a path that leads out of the cache."""
    mine = tmp_path / "private.jpg"
    mine.write_bytes(encode_image(photo))
    winding = str(tmp_path / "home" / "hub" / ".." / ".." / "private.jpg")
    images = [{"bytes": encode_image(photo[:40, :30]), "path": "a.jpg"}, {"bytes": None, "path": str(mine)}]
    rows = {"image": [*images, {"bytes": None, "path": winding}]}
    (tmp_path / "home" / "hub").mkdir(parents=True)
    table = Dataset.from_dict(rows, Features({"image": Image(decode=False)})).data.table
    parquet.write_table(table, tmp_path / "evil.parquet")
    with LoopbackHub(tmp_path / "home") as hub:
        content = (tmp_path / "evil.parquet").read_bytes()
        hub.upload("me/evil", {"data/train-00000-of-00001.parquet": content}, kind="dataset")
        done = hub.run_python(NAMED, "me/evil", how)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [size for size, _name in json.loads(done.stdout)] == [[30, 40]]
    assert done.stderr.count("missing") == 2


@pytest.mark.parametrize(
    "variables",
    [{"HF_ENDPOINT": "http://127.0.0.1:1"}, {"HF_ENDPOINT": "http://nowhere.invalid"}, {"HF_HUB_OFFLINE": "1"}],
)
def test_without_a_network_a_hub_id_fails_at_once(tmp_path, variables):
    """Refused, no such host, switched off: no waiting, which would be logged, and one line."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = outer | {"HF_HOME": str(tmp_path), "NO_PROXY": "*", "no_proxy": "*"} | variables
    command = [sys.executable, "-c", OPEN, "me/photos", "", ""]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("ValueError: dataset: the Hub cannot be reached for 'me/photos'"), done.stderr
    assert done.stdout.count("\n") == 1 and "trying again" not in done.stderr
