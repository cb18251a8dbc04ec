"""The process that the kill harness kills: writes observations, prints each acknowledgement, goes on where it was.

python kill_writer.py DIRECTORY LAST_SEQ SEED
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "storage"))

from sample_moments import observation, small_config

import streammem.memory

STREAMS = ("cam", "arm/../'; DROP TABLE segments; --")


def main(directory: str, last: int, seed: int) -> None:
    rng = random.Random(seed)
    with streammem.memory.open(directory, config=small_config(seal_bytes=12000)) as memory:
        print("open", flush=True)
        number = min((memory.last_seq(stream, "s") or 0) for stream in STREAMS)  # one is offered again: a duplicate
        while number <= last:
            size = rng.randint(1, 24)
            batch = [
                observation(at, stream) for at in range(number, min(number + size, last + 1)) for stream in STREAMS
            ]
            number += size
            if rng.random() < 0.5:
                memory.write(batch)
            else:
                memory.write(batch, durable=False)
                memory.put_state("cursor", str(number).encode(), durable=False)
                memory.flush()
                print("state", number, flush=True)
            print("ack", batch[-1].seq, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
