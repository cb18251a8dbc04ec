"""A producer process of ``streammem bench service``: writes packets of a given size at a given rate, prints one JSON
document with what was acknowledged and how long each acknowledgement took."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from streammem.checks import validate_observation
from streammem.client import packed
from streammem.keys import load_keys
from streammem.link import Link
from streammem.model import Label, Observation, TextSpan
from streammem.window import Packet

POOL = 64
"""Different payloads: enough that neither disk nor memory can cheat, few enough to make them in 0.1 s."""


SIGN_EVERY = 300
"""A text in ten seconds of a camera: what the searches of the benchmark look for."""


def payloads(size: int) -> list[dict[str, Any]]:
    """What a camera's keyframe carries: a 384-d vector, 15 x 100 sparse class scores, a JPEG that fills up ``size``."""
    rng = np.random.default_rng(1)
    scene = rng.standard_normal(384, dtype=np.float32)
    made = []
    for _ in range(POOL):
        # One scene: two pictures of a camera have a cosine of about 0.92, as the default space's have.
        vector = scene + 0.3 * rng.standard_normal(384, dtype=np.float32)
        vector /= np.linalg.norm(vector)
        classes = rng.random((15, 100)).astype(np.float16)
        rest = max(200, size - vector.nbytes - classes.nbytes - 300)
        # A baseline JPEG as far as its header says (8 x 8 pixels); the service reads no more of it.
        head = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda"
        thumbnail = head + rng.integers(0, 255, rest, np.uint8).tobytes() + b"\xff\xd9"
        made.append({"embedding": vector, "parts": {"classes": classes}, "thumbnail": thumbnail})
    return made


def main() -> None:
    plan = json.loads(sys.argv[1])
    streams, rate, seconds = plan["streams"], plan["rate"], plan["seconds"]
    pool = payloads(plan["bytes"])
    given: dict[tuple[str, str, int], float] = {}
    seconds_of: list[float] = []

    def landed(packet: Packet) -> None:
        seconds_of.append(time.perf_counter() - given.pop(packet.key))

    keys = load_keys(plan["key"]) if plan.get("key") else None
    link = Link(plan["address"], keys=keys, name="bench", on_outcome=landed)
    link.start()
    link.wait_welcome(30)
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
            texts=(TextSpan("red mug", 0.9),) if sent % SIGN_EVERY == 0 else (),
            **pool[sent % POOL],
        )
        given[made.key] = time.perf_counter()
        validate_observation(made)
        link.wait(lambda: link.held[0] < plan["window"], 60)
        link.offer(made.key, packed(made))
        sent += 1
    link.wait(lambda: link.held[0] == 0, 60)
    took = time.perf_counter() - begun
    cut = len(seconds_of) // 8
    acks = sorted(seconds_of[cut : len(seconds_of) - cut])
    held = link.held[0]
    link.close()
    document = {"sent": sent, "acknowledged": len(seconds_of), "seconds": took, "held": held, "late_s": late}
    print(json.dumps(document | {"acks": acks[:: max(1, len(acks) // 2000)]}), flush=True)


if __name__ == "__main__":
    main()
