"""What the banks answer through a service: the same as in process, and only of the streams that a key may see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from live_samples import FAST
from live_serve import Running

from streammem.client import connect
from streammem.errors import QueryError
from streammem.keys import AllowList, load_keys, new_key
from streammem.model import Detection, Observation, StateFact

S = 1_000_000_000
JPEG = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda\x00\xff\xd9"


def followed(stream: str, track: str, place: str) -> list[Observation]:
    """A person from 0 to 4 s and again from 9 to 12 s; a mug that was put somewhere."""
    person = Detection("person", 0.9, (0.1, 0.1, 0.3, 0.9), track)
    mug = StateFact("mug", "place", place, relation="on")
    return [
        Observation(
            stream=stream,
            seq=second,
            capture_ns=second * S,
            detections=(person,),
            states=(mug,) if second == 0 else (),
            thumbnail=JPEG,
        )
        for second in (*range(5), *range(9, 13))
    ]


def test_a_client_hears_what_the_memory_says_and_a_scope_hides_the_rest(
    tmp_path: Path, serve: Callable[..., Running]
) -> None:
    keys = tmp_path / "keys"
    new_key(keys, "boss", role="admin")
    new_key(keys, "guest", role="query", streams=["kitchen"])
    server = load_keys(keys / "server.key_secret")
    running = serve(keys=server, allow=AllowList(keys / "allow.yaml"))
    clients = {name: str(keys / f"{name}.key_secret") for name in ("boss", "guest")}
    with connect(running.address, keys=clients["boss"], timing=FAST, connect_s=2) as boss:
        boss.write(followed("kitchen", "7", "table") + followed("bedroom", "8", "bed"))
        for question in ("when did track 7 come back?", "how many people were there?", "where is the mug?"):
            mine, theirs = running.memory.ask(question), boss.ask(question)
            assert (mine.status, mine.text, mine.evidence) == (theirs.status, theirs.text, theirs.evidence)
        assert boss.ask("how many people were there at once?").text.startswith("At most 1 person")
        assert "Tracks: 7, 8" in boss.ask("when did track 99 leave?").text
    with connect(running.address, keys=clients["guest"], timing=FAST, connect_s=2) as guest:
        answer = guest.ask("when did track 7 come back?")
        assert answer.status == "found" and all(guest.thumbnail(f.record_id) for f in answer.evidence[0].frames)
        assert guest.ask("when did track 8 come back?").text == "There is no track 8 here. Tracks: 7."
        assert "8" not in guest.ask("which tracks are there?").text
        assert "bed" not in guest.ask("where is the mug?").text
        assert {item.stream for item in guest.search("track 8")} <= {"kitchen"}
        with pytest.raises(QueryError):
            guest.ask("when did track 8 leave?", streams=["bedroom"])
