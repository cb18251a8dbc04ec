"""Where words go: results to stdout, notes and progress to stderr, with ``--json`` one document on stdout.

rich is imported when the first human line is written.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from streammem.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

_document_fd: int | None = None


@contextmanager
def protected_stdout(as_json: bool) -> Iterator[None]:
    """With ``--json``, stdout belongs to the one document: what libraries print there goes to stderr instead.

    It works on the file descriptor, because native libraries (FFmpeg, OpenCV) don't ask sys.stdout."""
    global _document_fd
    if not as_json:
        yield
        return
    try:
        stdout, stderr = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):
        # Streams without descriptors, as in a notebook: nothing native can reach them either.
        yield
        return
    sys.stdout.flush()
    _document_fd = os.dup(stdout)
    os.dup2(stderr, stdout)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            os.dup2(_document_fd, stdout)
            os.close(_document_fd)
            _document_fd = None


def write_document(document: Mapping[str, Any]) -> None:
    """The one JSON document. ASCII only, so that no name inside it can drive a terminal; NaN and infinity are null."""
    text = json.dumps(_finite(document), ensure_ascii=True, allow_nan=False, indent=2) + "\n"
    if _document_fd is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    data = memoryview(text.encode("ascii"))
    while data:
        data = data[os.write(_document_fd, data) :]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_finite(item) for item in value]
    return value


def fail(message: str, hint: str, code: int, kind: str, as_json: bool, error: BaseException | None = None) -> int:
    """One line on stderr (and the same as the document with ``--json``); gives the exit code back.

    ``STREAMMEM_DEBUG=1`` shows the traceback of ``error`` before the line."""
    if error is not None and os.environ.get("STREAMMEM_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    from streammem.redact import redact

    # The last gate: a library's message may repeat an address with its password.
    message, hint = redact(message), redact(hint)
    line = f"streammem: {message} ({hint})" if hint else f"streammem: {message}"
    try:
        # Long enough for two paths and a list of what is known; an echoed question of 10,000 characters is cut.
        print(printable(line, 600), file=sys.stderr, flush=True)
        if as_json:
            what = printable(message, 400)
            write_document({"error": {"type": kind, "message": what, "hint": printable(hint, 400)}, "exit_code": code})
    except OSError:
        pass  # both streams are gone; the exit code is all that is left to say
    return code


def crash_log(error: BaseException, args: Sequence[str]) -> str:
    """Write what a maintainer needs to a new file and give its path."""
    import platform
    import tempfile
    import time
    import traceback
    from pathlib import Path

    from streammem.cli.main import version
    from streammem.paths import cache_dir
    from streammem.redact import redact

    text = "\n".join(
        [
            f"streammem {version()}, Python {platform.python_version()}, {platform.platform()}",
            f"arguments: {list(args)!r}",
            "",
            "".join(traceback.format_exception(error)),
        ]
    )
    # A user and password inside an address (rtsp://user:password@camera) stay out of a file that may be sent on.
    text = redact(text)
    name = f"crash-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
    for folder in (cache_dir() / "crashes", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return str(folder / name)
    return "(nowhere: neither the cache nor the temporary directory can be written; set STREAMMEM_DEBUG=1)"


class Output:
    """What one command says. With ``as_json`` only the document reaches stdout; ``quiet`` keeps notes to itself."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._consoles: dict[bool, Console] = {}

    @property
    def result(self) -> Console:
        """Where results go: stdout."""
        return self._console(False)

    @property
    def aside(self) -> Console:
        """Where notes and progress go: stderr."""
        return self._console(True)

    def _console(self, stderr: bool) -> Console:
        if stderr not in self._consoles:
            from rich.console import Console

            # highlight=False and Text everywhere: numbers and [brackets] in names and questions are only text.
            console = Console(stderr=stderr, highlight=False)
            if not console.is_terminal and "COLUMNS" not in os.environ:
                # rich takes 80 for a file or a pipe, where nothing forces a table to be that narrow.
                console.width = 120
            self._consoles[stderr] = console
        return self._consoles[stderr]

    def note(self, text: str) -> None:
        """One grey line on stderr, unless quiet or ``--json``."""
        if not self.quiet and not self.as_json:
            from rich.text import Text

            self.aside.print(Text(printable(text, 400), style="dim"), soft_wrap=True)

    def line(self, text: str, style: str = "") -> None:
        """One line of a result on stdout."""
        from rich.text import Text

        self.result.print(Text(printable(text, 4000), style=style), soft_wrap=True)

    def document(self, document: Mapping[str, Any]) -> None:
        """The one document of ``--json``."""
        write_document(document)
