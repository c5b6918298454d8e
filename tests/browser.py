"""A headless Chromium, from Debian's packages (bin/setup --browser); a test that needs one is skipped where there is none."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def chromium(width: int = 1300, height: int = 1000) -> Iterator[Any]:
    """A selenium driver without network access to anything but files."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium here: bin/setup --browser installs Debian's")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
        options.add_argument(argument)
    session = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield session
    finally:
        session.quit()


def open_page(session: Any, page: Path) -> None:
    """Open a file and check that it said nothing, asked for nothing else, and shows every image."""
    session.get(page.resolve().as_uri())
    complaints = [entry for entry in session.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not complaints, complaints
    import json

    events = [json.loads(entry["message"])["message"] for entry in session.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith(("file://", "data:")) for url in asked), asked
    widths = session.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert all(width > 300 for width in widths), widths
