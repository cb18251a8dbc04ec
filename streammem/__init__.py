"""streammem: a memory for cameras and robots.

with streammem.open("kitchen.mem") as memory:
    memory.write(observations)
    answer = memory.ask("where is the mug?")
"""

from __future__ import annotations
