"""The real command in a real Chromium: without JavaScript, by keyboard, for a screen reader, in the dark."""

from __future__ import annotations

import base64
import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.contracts.audited_silo import JOB, AuditedSilo, make_audited_silo
from tests.support.chromium import IS_MISSING, MISSING, chromium

ROOT = Path(__file__).parents[2]
PAGES = ("/", "/budgets", "/ledger", "/jobs", f"/jobs/{JOB}", "/policy", "/findings")

pytestmark = pytest.mark.e2e
in_browser = pytest.mark.skipif(IS_MISSING, reason=MISSING)

CONTRAST = """
const channels = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
const behind = node => {
  for (; node; node = node.parentElement) {
    const found = channels(getComputedStyle(node).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
const found = [];
for (const node of document.querySelectorAll('body *')) {
  const words = [...node.childNodes].filter(n => n.nodeType === 3 && n.data.trim());
  if (!words.length || node.closest('title, desc, option')) continue;
  const style = getComputedStyle(node);
  const ink = channels(node.namespaceURI.endsWith('svg') ? style.fill : style.color);
  const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), words[0].data.trim()]);
}
return found;
"""


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("silo"))


def command(silo: AuditedSilo, *words: str) -> list[str]:
    start = [sys.executable, "-m", "cli", "silo", "dashboard", "--dir", str(silo.directory)]
    return [*start, "--charter", str(silo.charter_path), *words]


@contextmanager
def served(silo: AuditedSilo) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        command(silo, "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as server:
        try:
            assert server.stdout is not None
            yield server, next(line for line in server.stdout if line.startswith("http")).strip()
        finally:
            server.kill()


@contextmanager
def opened(silo: AuditedSilo, profile: Path, **options: Any) -> Iterator[tuple[Chrome, str]]:
    with served(silo) as (_, link), chromium(profile, **options) as driver:
        driver.get(link)
        parts = urlsplit(link)
        yield driver, f"{parts.scheme}://{parts.netloc}"


@in_browser
def test_everything_is_readable_without_javascript_and_the_token_is_gone(
    silo: AuditedSilo, tmp_path: Path
) -> None:
    with opened(silo, tmp_path, has_scripts=False) as (driver, base):
        assert driver.current_url == f"{base}/"
        assert "token" not in driver.current_url
        cookie = driver.get_cookies()[0]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        for path in PAGES:
            driver.get(base + path)
            assert len(driver.find_elements(By.TAG_NAME, "h1")) == 1
        driver.get(f"{base}/ledger")
        Select(driver.find_element(By.ID, "kind")).select_by_value("committed")
        driver.find_element(By.CSS_SELECTOR, "button").click()
        rows = driver.find_elements(By.CSS_SELECTOR, "tbody tr")
        assert ["committed" in row.text for row in rows] == [True]
        driver.find_element(By.LINK_TEXT, "Jobs").click()
        driver.find_element(By.PARTIAL_LINK_TEXT, JOB[:12]).click()
        assert driver.find_element(By.TAG_NAME, "h1").text == JOB


@in_browser
def test_the_keyboard_reaches_every_control_in_order_and_shows_where_it_is(
    silo: AuditedSilo, tmp_path: Path
) -> None:
    with opened(silo, tmp_path) as (driver, base):
        for path in PAGES:
            driver.get(base + path)
            wanted = driver.find_elements(By.CSS_SELECTOR, "a[href], button, input, select")
            reached = []
            for _ in range(len(wanted) + 12):
                ActionChains(driver).send_keys(Keys.TAB).perform()
                element = driver.switch_to.active_element
                if element.tag_name == "body":
                    break
                if not reached:
                    assert element.text == "Skip to the content"
                reached.append(element)
                style = driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
                assert style not in ("none", ""), element.get_attribute("outerHTML")
            assert [element for element in reached if element in wanted] == wanted, path


def spoken(driver: Chrome) -> list[dict[str, Any]]:
    """Nodes of the page's accessibility tree, which a busy browser builds after the page itself."""

    def grown(driver: Chrome) -> list[dict[str, Any]] | None:
        nodes: list[dict[str, Any]] = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        return nodes if any(node.get("role", {}).get("value") == "main" for node in nodes) else None

    return WebDriverWait(driver, 10).until(grown)


@in_browser
def test_a_screen_reader_is_told_a_name_for_everything(silo: AuditedSilo, tmp_path: Path) -> None:
    roles = {"link", "button", "textbox", "searchbox", "combobox", "image", "img", "table", "navigation"}
    with opened(silo, tmp_path) as (driver, base):
        for path in PAGES:
            driver.get(base + path)
            nodes = spoken(driver)
            heard = [
                (node["role"]["value"], node.get("name", {}).get("value", ""))
                for node in nodes
                if not node.get("ignored") and "role" in node
            ]
            unnamed = [role for role, name in heard if role in roles and not name.strip()]
            assert unnamed == [], path
            assert {"main", "navigation", "banner", "contentinfo"} <= {role for role, _ in heard}
            levels = [
                prop["value"]["value"]
                for node in nodes
                if node.get("role", {}).get("value") == "heading"
                for prop in node.get("properties", ())
                if prop["name"] == "level"
            ]
            assert levels[0] == 1
            assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), path


def faint(driver: Chrome) -> list[tuple[float, str]]:
    """Words that hardly stand out. A busy browser applies an emulated scheme to a page bit by bit."""
    found: list[tuple[float, str]] = []
    for _ in range(10):
        measured = driver.execute_script(CONTRAST)
        assert len(measured) > 10
        found = [(ratio, text) for ratio, text in measured if ratio < 4.5]
        if not found:
            break
        time.sleep(0.3)
    return found


@in_browser
@pytest.mark.parametrize("is_dark", [False, True])
def test_every_word_stands_out_from_what_is_behind_it(
    silo: AuditedSilo, tmp_path: Path, is_dark: bool
) -> None:
    with opened(silo, tmp_path, is_dark=is_dark) as (driver, base):
        for path in PAGES:
            driver.get(base + path)
            assert faint(driver) == [], path


@in_browser
def test_narrow_screens_do_not_scroll_sideways(silo: AuditedSilo, tmp_path: Path) -> None:
    with opened(silo, tmp_path, width=360, height=700) as (driver, base):
        for path in PAGES:
            driver.get(base + path)
            wide = driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= 360, path


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_end_it_cleanly_and_nothing_it_wrote_holds_the_token_twice(
    silo: AuditedSilo, sent: signal.Signals, code: int
) -> None:
    import httpx2

    with served(silo) as (server, link):
        assert httpx2.get(link).status_code == 303
        assert httpx2.get(link).status_code == 403
        server.send_signal(sent)
        out, err = server.communicate(timeout=30)
        assert server.returncode == code
        token = re.sub(r".*token=", "", link)
        assert token not in out + err
        assert "Traceback" not in err


def test_a_busy_port_ends_with_seven_and_a_remedy(silo: AuditedSilo) -> None:
    with served(silo) as (_, link):
        port = str(urlsplit(link).port)
        second = subprocess.run(
            command(silo, "--port", port), capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
        )
    assert second.returncode == 7
    assert "choose another port" in second.stderr


def test_an_address_of_the_network_is_refused(silo: AuditedSilo) -> None:
    refused = subprocess.run(
        command(silo, "--host", "0.0.0.0"), capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert refused.returncode == 2
    assert "this machine only" in refused.stderr


@in_browser
@pytest.mark.parametrize("is_dark", [False, True])
def test_on_paper_there_is_ink_only_where_something_is_said(
    silo: AuditedSilo, tmp_path: Path, is_dark: bool
) -> None:
    """Printed from a dark screen too: no grey rest of a page, no controls, no page for the footer alone."""
    with opened(silo, tmp_path, is_dark=is_dark) as (driver, base):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": [scheme]})
        for path in PAGES:
            driver.get(base + path)
            ground, least = driver.execute_script(
                "const of = node => getComputedStyle(node);"
                "return [of(document.body).backgroundColor, of(document.querySelector('main')).minHeight]"
            )
            assert (ground, least) == ("rgba(0, 0, 0, 0)", "0px")
            for hidden in ("nav", ".skip", ".filters"):
                assert not any(
                    found.is_displayed() for found in driver.find_elements(By.CSS_SELECTOR, hidden)
                )
        for path in ("/ledger", "/jobs", "/findings"):
            driver.get(base + path)
            options = {"printBackground": True, "preferCSSPageSize": True}
            pdf = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", options)["data"])
            assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1, path
