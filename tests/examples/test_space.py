# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The Space in a real process, driven by a real browser: Debian's chromium, without a display."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_visreg import VISRegViTConfig, VISRegViTModel, save_checkpoint


APP = Path(__file__).parent.parent.parent / "examples" / "space" / "app.py"
pytestmark = pytest.mark.slow  # needs gradio, chromium and chromedriver: `make test-slow`
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
By = pytest.importorskip("selenium.webdriver.common.by").By
WebDriverWait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait

WAIT = 120  # seconds; a loaded machine is slow to start


def stripes(angle: int, color: tuple[int, int, int]) -> Image.Image:
    """A picture with a structure: stripes of a color, turned."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[:, (np.arange(128) // 8) % 2 == 0] = color
    return Image.fromarray(pixels).rotate(angle)


@pytest.fixture
def page(tmp_path):
    """The running Space, its address."""
    config = VISRegViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8, drop_path_rate=0.0
    )
    save_checkpoint(VISRegViTModel(config), tmp_path / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "VISREG_CHECKPOINT": str(tmp_path / "model"),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
    }
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, APP], env=os.environ | variables, stdout=output, stderr=output)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + WAIT
        while True:
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(address, timeout=5).read()
                break
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def test_an_image_is_looked_at(page, browser, tmp_path):
    pictures = []
    for number, (angle, color) in enumerate(
        [(0, (255, 0, 0)), (30, (0, 255, 0)), (60, (0, 0, 255)), (90, (255, 255, 0))]
    ):
        pictures.append(tmp_path / f"picture-{number}.png")
        stripes(angle, color).save(pictures[-1])
    browser.get(page)

    def found(selector: str):
        return WebDriverWait(browser, WAIT).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, selector))

    found("#image input[type=file]")[0].send_keys(str(pictures[2]))
    found("#image img")
    found("#gallery input[type=file]")[0].send_keys("\n".join(map(str, pictures)))
    WebDriverWait(browser, WAIT).until(lambda driver: "picture-3" in driver.find_element(By.ID, "gallery").text)
    found("#look")[0].click()
    shown = found("#nearest .caption-label")
    assert "blocks, width 48" in found("#description")[0].text
    assert shown[0].text == "1.00" and len(shown) == 4
    colors = found("#map img")[0]
    WebDriverWait(browser, WAIT).until(lambda driver: int(colors.get_property("naturalWidth")) > 0)
    assert (colors.get_property("naturalWidth"), colors.get_property("naturalHeight")) == (32 * 14, 24 * 14)
    browser.save_screenshot(str(tmp_path / "space.png"))
    assert len(Image.open(tmp_path / "space.png").convert("RGB").getcolors(2**24)) > 50

    # A name that is none is said on the page, once, which stays alive.
    name = found("#checkpoint textarea, #checkpoint input")[0]
    name.clear()
    name.send_keys("no/such-model")
    found("#look")[0].click()
    WebDriverWait(browser, WAIT).until(
        lambda driver: driver.find_element(By.TAG_NAME, "body").text.count("cannot be loaded") == 1
    )
