"""The other end of ``nav.habitat_agent``: questions in, frames out, one JSON object a line.

A policy answers ``{"question", "task_id", "stream", "session", "frames"}`` with one frame for each target, or None
where it has no answer. stdout is pure protocol; whatever goes wrong with one line is that line's answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from nav.findingdory.clock import FrameIndex
from streammem.errors import StreammemError
from streammem.model import Answer

Policy = Callable[[Mapping[str, Any]], Sequence[int] | None]


def serve(policy: Policy, lines: TextIO, out: TextIO) -> int:
    """Answer until the input ends. Returns how many questions were answered with frames."""
    answered = 0
    for line in lines:
        reply: dict[str, Any] = {"frame_indices": None}
        try:
            said = policy(json.loads(line))
            reply = {"frame_indices": [int(i) for i in said] if said is not None else None}
            answered += said is not None
        except (StreammemError, ValueError, KeyError, TypeError) as error:
            reply["error"] = f"{type(error).__name__}: {error}"[:500]
        out.write(json.dumps(reply) + "\n")
        out.flush()
    return answered


def frames_of(answer: Answer, index: FrameIndex, targets: int = 1) -> list[int] | None:
    """A memory's answer as frames: the best moments of its evidence, one for each target; None where nothing was found
    or the evidence has fewer moments than that."""
    evidence = answer.evidence or (answer.closest if answer.status == "unsure" else ())
    found = dict.fromkeys(index.frame_at(frame.t_ns) for one in evidence for frame in one.frames[:1])
    return list(found)[:targets] if len(found) >= targets else None


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m nav.findingdory.answering ADDRESS``: answer by asking a memory service."""
    import sys

    import streammem

    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1:
        sys.stderr.write("usage: python -m nav.findingdory.answering ADDRESS\n")
        return 2
    with streammem.connect(given[0]) as client:

        def ask(request: Mapping[str, Any]) -> Sequence[int] | None:
            index = FrameIndex(str(request["stream"]), str(request["session"]), int(request["frames"]))
            answer = client.ask(str(request["question"]), streams=[index.stream])
            return frames_of(answer, index)

        serve(ask, sys.stdin, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
