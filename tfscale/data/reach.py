"""Whether the files of a catalogue's data set can be fetched from here.

Owns one look at the network before TFDS begins, which would try ten times for every file and take minutes to say that
there is no network. Refuses to download.
"""

from __future__ import annotations

import importlib.util
import threading
import urllib.error
import urllib.request
from pathlib import Path

_SECONDS = 3.0


def offline_host(name: str, downloads: Path, *, seconds: float = _SECONDS) -> str | None:
    """Why the data set's first file can't be fetched: the address and the cause; None where it can, or none is known.

    Args:
        name: of the data set, without configuration and version.
        downloads: where TFDS keeps what it has fetched already.
    """
    url = next((url for url in _addresses(name) if not _is_here(url, downloads)), None)
    if url is None:
        return None
    said: list[str] = []

    def look() -> None:
        try:
            # An opener of its own: urlopen's is made once in a process and keeps the proxies of that moment.
            urllib.request.build_opener().open(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # an answer, whatever it is
        except (OSError, ValueError) as error:
            said.append(str(getattr(error, "reason", error)))

    # Looking a name up heeds no timeout.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(seconds + 0.5)
    cause = said[0] if said else "no answer" if looking.is_alive() else None
    return f"{url} ({cause})" if cause else None


def _addresses(name: str) -> list[str]:
    """Where the package says that the files come from."""
    found = importlib.util.find_spec("tensorflow_datasets")
    locations = (found.submodule_search_locations if found else None) or []
    for root in map(Path, locations):
        for file in (root / "datasets" / name / "checksums.tsv", root / "url_checksums" / f"{name}.txt"):
            if file.is_file():
                lines = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
                return [words[0] for words in lines if words and words[0].startswith(("http://", "https://"))]
    return []


def _is_here(url: str, downloads: Path) -> bool:
    return any(url in info.read_text(errors="replace") for info in downloads.glob("*.INFO"))
