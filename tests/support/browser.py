"""Pages looked at in a headless browser, where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

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
