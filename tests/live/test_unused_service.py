"""A service that is made and never run gives its addresses back: when it is closed, collected, or the process ends."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from live_samples import fake_space

import streammem.memory
from streammem.errors import InputError, ServiceError
from streammem.memory import Memory
from streammem.service import Service


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return streammem.memory.open(tmp_path / "m", spaces=fake_space)


def ends_soon(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it hangs"


def test_collected_it_gives_its_addresses_back(memory: Memory) -> None:
    service = Service(memory, bind="tcp://127.0.0.1:*", feed="tcp://127.0.0.1:*")
    address, gone = service.address, weakref.ref(service)
    with pytest.raises(InputError, match="can't be bound"):
        Service(memory, bind=address)
    del service
    ends_soon(gc.collect)
    assert gone() is None
    Service(memory, bind=address).close()


def test_closed_it_cant_be_run(memory: Memory) -> None:
    service = Service(memory, bind="tcp://127.0.0.1:*")
    ends_soon(service.close)
    service.close()
    with pytest.raises(ServiceError, match="was closed"):
        service.run()


def test_a_process_that_made_one_ends(tmp_path: Path) -> None:
    code = (
        "import sys, streammem.memory\nfrom streammem.service import Service\n"
        "memory = streammem.memory.open(sys.argv[1])\n"
        "service = Service(memory, bind='tcp://127.0.0.1:*')\nself = [service]\nself.append(self)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], check=True, timeout=30)
