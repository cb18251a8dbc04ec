"""streammem: a memory for cameras and robots.

    import streammem

    with streammem.open("kitchen.mem") as memory:
        memory.write(observations)
        answer = memory.ask("where is the mug?")
        print(answer.status, answer.text, answer.evidence)

The names below are the public ones; a name is imported when it is first used, so that ``import streammem`` and
``streammem --help`` cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streammem.client import Client, connect
    from streammem.config import Config
    from streammem.errors import StreammemError
    from streammem.memory import Memory, open
    from streammem.model import Answer, Evidence, Observation, Record
    from streammem.spaces import open_space

    __version__: str

_HOME = {
    "Answer": "streammem.model",
    "Client": "streammem.client",
    "Config": "streammem.config",
    "Evidence": "streammem.model",
    "Memory": "streammem.memory",
    "Observation": "streammem.model",
    "Record": "streammem.model",
    "StreammemError": "streammem.errors",
    "connect": "streammem.client",
    "open": "streammem.memory",
    "open_space": "streammem.spaces",
}

__all__ = [
    "Answer",
    "Client",
    "Config",
    "Evidence",
    "Memory",
    "Observation",
    "Record",
    "StreammemError",
    "__version__",
    "connect",
    "open",
    "open_space",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("streammem")
        except PackageNotFoundError:
            return "0+source"
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'streammem' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
