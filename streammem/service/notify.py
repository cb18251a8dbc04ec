"""Tell systemd how we are (sd_notify(3)): one datagram to the socket in ``$NOTIFY_SOCKET``; without it, nothing."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``, ``STATUS=...``. False where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A leading @ stands for the NUL byte of Linux's abstract names.
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.sendall(state.encode())
    except OSError:
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often ``WATCHDOG=1`` is expected at least, or None. Half of it is a good period."""
    period, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not period.isdigit() or int(period) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(period) / 1e6
