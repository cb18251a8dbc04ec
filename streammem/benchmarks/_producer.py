"""A producer process of ``streammem bench service``: writes packets of a given size at a given rate, prints one JSON
document with what was acknowledged and how long each acknowledgement took."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from perception.publisher import Lossless, Publisher
from streammem.model import Label, Observation
from streammem.window import Packet

POOL = 64
"""Different payloads: enough that neither disk nor memory can cheat, few enough to make them in 0.1 s."""


def payloads(size: int) -> list[dict[str, Any]]:
    """What a camera's keyframe carries: a 384-d vector, 15 x 100 sparse class scores, a JPEG that fills up ``size``."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(POOL):
        vector = rng.standard_normal(384, dtype=np.float32)
        vector /= np.linalg.norm(vector)
        classes = rng.random((15, 100)).astype(np.float16)
        rest = max(200, size - vector.nbytes - classes.nbytes - 300)
        # A baseline JPEG as far as its header says (8 x 8 pixels); the service reads no more of it.
        head = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda"
        thumbnail = head + rng.integers(0, 255, rest, np.uint8).tobytes() + b"\xff\xd9"
        made.append({"embedding": vector, "parts": {"classes": classes}, "thumbnail": thumbnail})
    return made


class Timed(Publisher):
    """Notes when each packet was handed over and when it was acknowledged."""

    def __init__(self, address: str, **options: Any) -> None:
        self.given: dict[tuple[str, str, int], float] = {}
        self.seconds: list[float] = []
        super().__init__(address, **options)

    def _outcome(self, packet: Packet) -> None:
        self.seconds.append(time.perf_counter() - self.given.pop(packet.key))
        super()._outcome(packet)


def main() -> None:
    plan = json.loads(sys.argv[1])
    streams, rate, seconds = plan["streams"], plan["rate"], plan["seconds"]
    pool = payloads(plan["bytes"])
    lane = Lossless(packets=plan["window"])
    publisher = Timed(plan["address"], lane=lane, keys=plan.get("key") or None, name="bench")
    publisher.get_state("bench/start/x")  # connected
    print("ready", flush=True)
    sys.stdin.readline()
    # First and last eighth are left out of the latencies: starting and stopping isn't what is measured.
    begun = time.perf_counter()
    sent = 0
    late = 0.0
    while (now := time.perf_counter()) - begun < seconds:
        due = begun + sent / rate if rate else now
        if due > now:
            time.sleep(due - now)
        late = max(late, time.perf_counter() - due)
        stream = streams[sent % len(streams)]
        made = Observation(
            stream=stream,
            session="bench",
            seq=sent,
            capture_ns=time.time_ns(),
            space="bench@1",
            labels=(Label("mug", 0.5),),
            **pool[sent % POOL],
        )
        publisher.given[made.key] = time.perf_counter()
        publisher.write(made)
        sent += 1
    publisher.flush()
    took = time.perf_counter() - begun
    cut = len(publisher.seconds) // 8
    acks = sorted(publisher.seconds[cut : len(publisher.seconds) - cut])
    held = publisher.close()
    document = {"sent": sent, "acknowledged": publisher.acknowledged, "seconds": took, "held": held, "late_s": late}
    print(json.dumps(document | {"acks": acks[:: max(1, len(acks) // 2000)]}), flush=True)


if __name__ == "__main__":
    main()
