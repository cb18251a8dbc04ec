"""Text from outside, made fit to be shown: a file name or a sign in the scene must not drive the terminal."""

from __future__ import annotations

import unicodedata

# Control pictures (U+2400...) show that something was there; deleting it would let "a\x1bb" pass for "ab".
_C0 = {code: chr(0x2400 + code) for code in range(32)} | {0x7F: "\u2421", 0x09: " ", 0x0A: " ", 0x0D: " "}
# Format characters that join letters in Persian, Hindi, emoji ... and can't reorder or hide text.
_JOINERS = {0x200C, 0x200D}


def printable(text: str, limit: int = 200) -> str:
    """``text`` on one line, without control characters, escapes, direction overrides and lone surrogates.

    At most ``limit`` characters; a cut text ends in an ellipsis."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_safe(character) for character in text)


def _safe(character: str) -> str:
    code = ord(character)
    if code in _C0:
        return _C0[code]
    category = unicodedata.category(character)
    if category in ("Zl", "Zp"):
        return " "
    # Cc: C1 controls (0x9b is an escape sequence of its own), Cf: direction overrides, Cs: undecodable bytes of names.
    if category in ("Cc", "Cs", "Co", "Cn") or (category == "Cf" and code not in _JOINERS):
        return "\ufffd"
    return character
