"""Secrets taken out of text before anyone reads it: logs, status, errors, crash logs.

One function, used wherever an address or a foreign message is shown. It errs on the side of hiding: cameras are set up
by hand, and passwords with ``@``, ``/``, ``#`` or ``?`` that nobody escaped are common in RTSP addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

HIDDEN = "***"

# An address inside other text: it ends at white space, a quote or a bracket that belongs to the sentence around it.
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<rest>[^\s\"'`<>|]*)")
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%]*\]|[^:]*)(?::[0-9*]{0,5})?,?")
_WORDS = (
    r"pass(?:word|wd|phrase)?|pwd|secret(?:[_-]?key)?|token|auth|api[_-]?key|key|sig(?:nature)?|credentials?|session"
)
_PARAMETER = re.compile(
    rf"(?P<name>(?:^|[?&;#/,])(?:[\w.-]*[_.-])?(?:{_WORDS})=)(?P<value>[^&;#\s\"'<>]+)", re.IGNORECASE
)
_ASSIGNED = re.compile(
    r"(?P<name>\b(?:secret[_-]?key|secret|password|passwd|token|api[_-]?key)\b[\"']?\s*[=:]\s*)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;&}]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"(?P<name>\b(?:Basic|Bearer|Digest)\s+)(?P<value>[A-Za-z0-9+/=._~-]{8,})")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` with every user and password inside an address, secret query parameter, secret assignment and
    authorization header replaced by ``***``.

    ``secrets`` are words known to be secret (a camera's password): they are hidden wherever they stand, also escaped.
    Applying it twice changes nothing more. Host, port and path stay, so that a person still knows which camera it is.
    """
    for secret in sorted({form for word in secrets if word for form in _forms(word)}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _ADDRESS.sub(_address, text)
    text = _ASSIGNED.sub(lambda match: match["name"] + HIDDEN, text)
    return _HEADER.sub(lambda match: match["name"] + HIDDEN, text)


def credentials(address: str) -> tuple[str, ...]:
    """The user's password (and every part of the user info that could be one) inside an address, to hand to
    ``redact`` where foreign text may repeat it without the address around it. Empty where there is none."""
    match = _ADDRESS.match(address)
    if match is None:
        return ()
    found: list[str] = []
    end = _userinfo_end(match["rest"])
    if end > 0:
        userinfo = match["rest"][: match["rest"].rindex("@")]
        password = userinfo.partition(":")[2]
        # A one-letter password would blank out half of every sentence; the address itself is hidden anyway.
        found += [word for word in (userinfo, password) if len(word) > 2]
    found += [parameter["value"] for parameter in _PARAMETER.finditer(match["rest"]) if len(parameter["value"]) > 2]
    return tuple(dict.fromkeys(found))


def without_user(address: str) -> str:
    """The address without user and password, everything else untouched: what names the same camera after its password
    was changed."""
    match = _ADDRESS.match(address)
    end = _userinfo_end(match["rest"]) if match is not None else 0
    return address if match is None or end <= 0 else match["scheme"] + match["rest"][end:] + address[match.end() :]


def escaped(address: str) -> str:
    """The address with its user and password percent-encoded, so that libraries which cut at the first ``/``, ``?`` or
    ``#`` find the host. What is encoded already stays."""
    match = _ADDRESS.match(address)
    end = _userinfo_end(match["rest"]) if match is not None else 0
    if match is None or end <= 0:
        return address
    user, colon, password = match["rest"][: end - 1].partition(":")
    safe = "%" if re.search("%[0-9A-Fa-f]{2}", user + password) else ""
    userinfo = quote(user, safe=safe) + colon + quote(password, safe=safe)
    return f"{match['scheme']}{userinfo}@{match['rest'][end:]}{address[match.end() :]}"


def _forms(word: str) -> set[str]:
    return {word, unquote(word), quote(word, safe="")}


def _address(match: re.Match[str]) -> str:
    rest = match["rest"]
    end = _userinfo_end(rest)
    if end > 0:
        # A password may hold both @ and ?: whatever stands before the very last @ is hidden.
        rest = f"{HIDDEN}@{rest[rest.rindex('@') + 1 :]}"
    elif end < 0:
        return match["scheme"] + HIDDEN
    return match["scheme"] + _PARAMETER.sub(lambda found: found["name"] + HIDDEN, rest)


def _userinfo_end(rest: str) -> int:
    """How many characters of what follows ``://`` belong to user info, its ``@`` included; 0 where there is none;
    -1 where there must be one but its end can't be told (a password with a space)."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = re.split(r"[?]", rest, maxsplit=1)[0]
    if "@" in path:
        # Up to the last one: `admin:p@ss/word@cam`. A path with an @ of its own loses that part, which is the safe way.
        return path.rindex("@") + 1
    if not _HOST_AND_PORT.fullmatch(authority):
        # `admin:p?ss@cam`: the "port" isn't a number, so this is a user and a password.
        return rest.rindex("@") + 1 if "@" in rest else -1
    return 0
