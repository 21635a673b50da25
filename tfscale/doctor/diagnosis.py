"""A finding, and how it is fit to be shown to strangers.

Owns the three verdicts, and what no report shows: secrets, and the names of people in paths. Refuses to know what was
looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tfscale.errors import TfscaleError, foreseen, is_plain, is_secret, keep_secret, without_secrets

OK, WARNING, WRONG = "ok", "warning", "wrong"
_FOLDERS = ("PWD", "OLDPWD")  # of the shell, and no passwords
_HOMES = re.compile(r"(/(?:home|Users)/)[^/\s'\",;:]+")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        check: its name, the same in every version; a thing that there is several times has one finding for each.
        verdict: OK, WARNING or WRONG.
        fact: one sentence.
        fix: what to do about it, as a command or override where there is one.
    """

    check: str
    verdict: str
    fact: str
    fix: str = ""

    @classmethod
    def of_error(cls, check: str, error: BaseException) -> Finding:
        """What an error says, as a finding."""
        told: TfscaleError = foreseen(error)
        return cls(check, WRONG, f"{told.what} ({told.where})" if told.where else told.what, told.fix)


def guarded(check: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What one look finds; its own failure is a finding, too, and keeps nothing else from being looked at."""
    try:
        return list(look())
    except Exception as error:  # whatever a broken machine brings forth
        return [Finding.of_error(check, error)]


def hide_secrets(environ: Mapping[str, str]) -> None:
    """Makes no message show the values of variables that are secrets by their names."""
    named = {name: value for name, value in environ.items() if name not in _FOLDERS and is_secret(name)}
    keep_secret(value for value in named.values() if not is_plain(value))


def shareable(findings: Iterable[Finding], environ: Mapping[str, str]) -> list[Finding]:
    """The same without secrets and without people's names in paths."""
    people = _people(environ)

    def fit(text: str) -> str:
        return _without_people(without_secrets(text), *people)

    return [dataclasses.replace(one, fact=fit(one.fact), fix=fit(one.fix)) for one in findings]


def _people(environ: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """(home folders, names) of whoever runs this."""
    homes, names = {environ.get("HOME", "")}, {environ.get("USER", ""), environ.get("LOGNAME", "")}
    with contextlib.suppress(ImportError, KeyError):  # a container's user need not have an entry
        import pwd

        entry = pwd.getpwuid(os.getuid())
        homes, names = homes | {entry.pw_dir}, names | {entry.pw_name}
    homes = {home.rstrip("/") for home in homes if home.startswith("/")} - {""}
    return homes, names - {"", "root"}


def _without_people(text: str, homes: Iterable[str], names: Iterable[str]) -> str:
    for home in sorted(homes, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./-]){re.escape(home)}(?![\w.-])", "~", text)
    text = _HOMES.sub(r"\1<user>", text)
    for name in names:  # as a part of a path alone: a user may be called as a word of a sentence
        text = re.sub(rf"(?<=/){re.escape(name)}(?![\w.-])", "<user>", text)
    return text


def worst(findings: Sequence[Finding]) -> str:
    """The verdict of all of them."""
    found = {one.verdict for one in findings}
    return next((verdict for verdict in (WRONG, WARNING) if verdict in found), OK)
