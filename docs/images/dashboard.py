"""Photograph the dashboard of a demo: ``PYTHONPATH=. python docs/images/dashboard.py run``.

Starts the real command over the first silo of ``archipel demo --out run``; a real Chromium looks at it.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from selenium.webdriver import Chrome

from tests.support.chromium import chromium

HERE = Path(__file__).parent
PICTURES = (
    ("dashboard-overview", "/", 1100, False),
    ("dashboard-ledger", "/ledger", 1100, False),
    ("dashboard-policy-dark", "/policy", 1100, True),
    ("dashboard-narrow", "/", 400, False),
)


def photograph(silo: Path, target: Path) -> None:
    """Write every picture of :data:`PICTURES`."""
    for name, path, width, is_dark in PICTURES:
        command = [sys.executable, "-m", "cli", "silo", "dashboard", "--dir", str(silo), "--port", "0"]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,  # noqa: S603
            tempfile.TemporaryDirectory() as profile,
            chromium(Path(profile), width=width, height=820, is_dark=is_dark) as driver,
        ):
            try:
                assert server.stdout is not None  # noqa: S101
                link = next(line for line in server.stdout if line.startswith("http")).strip()
                driver.get(link)
                parts = urlsplit(link)
                driver.get(f"{parts.scheme}://{parts.netloc}{path}")
                save(driver, target / f"{name}.png", width)
            finally:
                server.terminate()


def save(driver: Chrome, path: Path, width: int) -> None:
    """The page from its top, at most one and a half screens of it."""
    height = min(1230, driver.execute_script("return document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    photograph(sorted((Path(sys.argv[1]) / "silos").iterdir())[0], HERE)
