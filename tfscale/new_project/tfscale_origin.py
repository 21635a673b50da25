"""Where this very tfscale was installed from, so that a project can install the same.

Installers write it down for what doesn't come from an index (PEP 610, direct_url.json). Refuses to install.
"""

from __future__ import annotations

import os
from importlib import metadata
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tfscale.files import parsed_mapping


def pip_argument() -> str:
    """What pip installs it by: the path of a checkout or a wheel that is still there, or an address; "" where it came
    from an index, or nobody knows."""
    try:
        text = metadata.distribution("tfscale").read_text("direct_url.json") or ""
    except metadata.PackageNotFoundError:  # it is run where it lies
        return ""
    told = parsed_mapping(text.encode(), where="direct_url.json")
    address, control = str(told.get("url", "")), told.get("vcs_info")
    if isinstance(control, dict):
        return f"{control.get('vcs')}+{address}@{control.get('commit_id')}"
    if address.startswith("file:"):
        path = url2pathname(urlsplit(address).path)
        return path if os.path.exists(path) else ""
    return address
