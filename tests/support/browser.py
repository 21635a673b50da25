"""Pages looked at in a headless browser, where there is one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def seen(page, tmp_path, *options):
    """The document once its scripts have run; skips where there is no browser."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    command = [BROWSER, *QUIET, "--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, *options, f"file://{page}"], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def width_on(points, page, tmp_path):
    """How wide the page is in a frame of so many points, as on a telephone: no window of Chromium's is that narrow."""
    frame = tmp_path / "frame.html"
    content = json.dumps(page.read_text()).replace("</", "<\\/")
    frame.write_text(
        f"""<body><iframe id="page" width="{points}" height="800" style="border: 0"></iframe><script>
        const page = document.getElementById("page")
        page.onload = () => setTimeout(() => {{
            document.body.dataset.width = page.contentDocument.documentElement.scrollWidth
        }}, 1000)
        page.srcdoc = {content}
        </script></body>"""
    )
    return int(re.search(r'data-width="(\d+)"', seen(frame, tmp_path, "--dump-dom"))[1])


def loaded_from_outside(html):
    """What a browser would fetch: links that people may follow are none."""
    fetched = r"""(?:src|<link[^>]*href)\s*=\s*["']?(?:https?:)?//[^"'\s>]+|url\(\s*["']?https?:|@import"""
    return re.findall(fetched, html)


class Tab:
    """A page in a browser that is asked by DevTools' protocol (chromedevtools.github.io/devtools-protocol).

    Attributes:
        errors: what the browser complained of: exceptions, and what its policies refuse.
    """

    def __init__(self, loop, socket):
        self._loop, self._socket, self._count, self.errors = loop, socket, 0, []
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._count += 1
        return self._loop.run_until_complete(self._answer({"id": self._count, "method": method, "params": parameters}))

    async def _answer(self, asked):
        async with asyncio.timeout(30):
            await self._socket.send_json(asked)
            while True:
                found = await self._socket.receive_json()
                if found.get("id") == asked["id"]:
                    assert "error" not in found, (asked, found)
                    return found["result"]
                if found.get("method") == "Runtime.exceptionThrown":
                    self.errors.append(found["params"]["exceptionDetails"]["exception"].get("description"))
                if found.get("method") == "Log.entryAdded" and found["params"]["entry"]["level"] == "error":
                    self.errors.append(found["params"]["entry"]["text"])

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, script):
        """What the script gives, which may be a promise."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script):
        """What the script gives once that is something; true of an element."""
        script = f"(found => found instanceof Node ? true : found)({script})"
        deadline = time.monotonic() + 60
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, (script, self.errors, self.run("document.body.innerText"))
            time.sleep(0.02)
        return found

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def narrow(self, points):
        """As on a telephone; the page's own width then."""
        self.call("Emulation.setDeviceMetricsOverride", width=points, height=780, deviceScaleFactor=2, mobile=True)
        return self.run("document.documentElement.scrollWidth")

    def write(self, selector, text):
        """As somebody who types it in the place of what stands there."""
        self.run(f"(one => {{ one.focus(); one.select() }})(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=text)

    def click(self, selector):
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def drop(self, selector, file):
        """A file from somebody's folder onto a part of the page."""
        place = self.run(
            f"(one => {{ one.scrollIntoView(); const box = one.getBoundingClientRect()\n"
            f"return [box.x + box.width / 2, box.y + box.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        held = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=place[0], y=place[1], data=held)

    def photograph(self, file):
        """The whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1})
        file.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def tab(tmp_path):
    """A tab of a browser of its own; skips where there is none."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    import aiohttp

    profile = tmp_path / "profile-of-tab"
    command = [BROWSER, *QUIET, "--remote-debugging-port=0", "--window-size=1200,900", f"--user-data-dir={profile}"]
    with (
        subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        asyncio.Runner() as runner,
    ):
        try:
            place, deadline = profile / "DevToolsActivePort", time.monotonic() + 30
            while not (place.is_file() and place.read_text().count("\n")):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            port = place.read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as listed:
                page = next(one for one in json.load(listed) if one["type"] == "page")

            async def connect():
                session = aiohttp.ClientSession()
                return session, await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

            session, socket = runner.run(connect())
            try:
                yield Tab(runner.get_loop(), socket)
            finally:
                runner.run(session.close())
        finally:
            process.terminate()
