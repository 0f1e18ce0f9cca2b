# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Every wait for a Hub ends, whatever the Hub does: it may accept and never answer, or ask for a day."""

import logging
import time
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import HfApi

from helpers.loopback_hub import LoopbackHub
from visreg_training import retry
from visreg_training.retry import Patience, bound_waits, is_transient, with_retries


@pytest.fixture
def hub():
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def slept(monkeypatch):
    """What is slept, without sleeping; of huggingface_hub too."""
    waited, monotonic = [], time.monotonic
    clock = SimpleNamespace(sleep=waited.append, monotonic=lambda: monotonic() + sum(waited))
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_a_hub_that_accepts_and_never_answers_is_given_up(hub, slept, monkeypatch, caplog):
    monkeypatch.setattr(retry, "SILENCE", 0.5)
    hub.fail("GET", "/api/models/", action="hang", times=1000)
    api = HfApi(endpoint=hub.url, token=hub.token)
    with caplog.at_level(logging.WARNING), pytest.raises(Exception) as caught:
        with_retries(lambda: api.model_info("org/first"), "Looking up org/first", 25)
    assert is_transient(caught.value)
    assert "Looking up org/first failed" in caplog.text and "trying again in" in caplog.text
    assert 15 <= sum(slept) <= 26 and 3 < len(hub.requests) < 12


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "99999"}, {"Retry-After": "9" * 30}, {"RateLimit": '"api";r=0;t=99999'}], ids=str
)
def test_a_hub_that_asks_for_a_day_is_given_a_minute(hub, slept, headers):
    """huggingface_hub's own retries obey it as it is; ours are asked last."""
    hub.create("org/first")
    hub.fail("POST", "/preupload/", status=429, headers=headers, times=1000)
    bound_waits()
    api = HfApi(endpoint=hub.url, token=hub.token)
    with pytest.raises(Exception, match="429"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="org/first")
    assert slept and max(slept) <= 61


def test_patience_is_never_overdrawn(slept):
    """The last pause ends with the patience, not up to half a minute after it."""
    patience, error = Patience(40), ConnectionError("away")
    while patience.wait(error, "Pushing"):
        pass
    assert sum(slept) <= 42


def test_a_token_does_not_follow_to_another_host(hub, tmp_path):
    """Where a Hub sends a download elsewhere, the other host gets no token of the user's."""
    seen = []
    with LoopbackHub() as other:
        elsewhere = f"http://localhost:{other.port}/other/files/resolve/main/config.json"
        other.upload("other/files", {"config.json": b"{}"})
        hub.create("org/first")
        hub.fail("GET", "resolve", status=302, headers={"Location": elsewhere}, times=10)
        hub.fail("HEAD", "resolve", status=302, headers={"Location": elsewhere}, times=10)
        bound_waits()
        handler = other.server.RequestHandlerClass
        answer = handler.handle_any

        def noting(self):
            seen.append(self.headers.get("Authorization"))
            answer(self)

        handler.do_GET = handler.do_HEAD = noting
        with pytest.raises(Exception, match=r"config\.json|commit|Distant|locate the file"):
            api = HfApi(endpoint=hub.url, token=hub.token)
            api.hf_hub_download("org/first", "config.json", cache_dir=tmp_path)
        headers = {"Authorization": f"Bearer {hub.token}"}
        huggingface_hub.get_session().get(f"{hub.url}/org/first/resolve/main/config.json", headers=headers)
    assert seen and all(header is None for header in seen)
