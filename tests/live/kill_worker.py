"""What the kill harness kills: a producer that logs every acknowledgement, and someone who asks all the time.

python kill_worker.py produce ADDRESS STREAM LOG COUNT      python kill_worker.py ask ADDRESS
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from live_samples import FAST, moment

from perception.publisher import Lossless, Publisher
from streammem.client import connect
from streammem.errors import DeadlineExceeded, ServiceBusy, ServiceUnreachable
from streammem.window import Packet


class Logging(Publisher):
    """One line a packet, written when its acknowledgement arrives: it outlives a SIGKILL of this process."""

    def __init__(self, address: str, log: Path) -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        super().__init__(address, lane=Lossless(packets=64), timing=FAST, timeout_s=60)

    def _outcome(self, packet: Packet) -> None:
        assert packet.outcome in ("written", "duplicate"), packet.outcome
        os.write(self.log, f"{packet.key[2]}\n".encode())
        super()._outcome(packet)


def acknowledged(log: Path) -> set[int]:
    """Whole lines only: the process may have died in the middle of one."""
    if not log.exists():
        return set()
    return {int(line) for line in log.read_text().rpartition("\n")[0].split()}


def produce(address: str, stream: str, log: Path, count: int) -> None:
    done = acknowledged(log)
    with Logging(address, log) as producer:
        for number in range(count):
            if number not in done:
                producer.write(moment(number, stream, full=number % 10 == 0))
                time.sleep(0.008)
        producer.flush()


def ask(address: str) -> None:
    while True:
        try:
            with connect(address, timing=FAST, timeout_s=2.0) as client:
                while True:
                    client.search("EXIT", k=3)
                    client.status()
                    time.sleep(0.02)
        except (ServiceUnreachable, DeadlineExceeded, ServiceBusy):
            time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "produce":
        produce(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
    else:
        ask(sys.argv[2])
