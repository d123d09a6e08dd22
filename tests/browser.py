"""A real browser: Debian's Chromium without a screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

HAS_BROWSER = bool(shutil.which("chromium") and shutil.which("chromedriver"))
NO_BROWSER = "it needs Debian's packages chromium and chromium-driver"


@contextmanager
def open_browser(width: int = 1400, height: int = 1000) -> Iterator[Chrome]:
    """A browser with a window of that size, in pixels."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(120)
        yield driver
    finally:
        driver.quit()
