"""The memory service: a thin ZeroMQ shell around one ``Memory``.

loop.py       the ROUTER socket: receives, checks, answers; the only thread that touches sockets
ingest.py     packets that wait, fairly by stream, and the thread that writes them in groups
requests.py   questions and changes, in worker threads
peers.py      who is connected, and what each may still send
notify.py     systemd is told the truth
"""

from __future__ import annotations

from streammem.service.loop import Service

__all__ = ["Service"]
