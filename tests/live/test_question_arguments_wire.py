"""A wrongly typed argument of a bank's question is the same typed error from a service as in process."""

from __future__ import annotations

from typing import Any

import pytest
from live_serve import Running

from streammem.client import Client
from streammem.errors import QueryError


@pytest.mark.parametrize(
    ("bank", "question", "arguments"),
    [
        ("events", "events", {"limit": "ten"}),
        ("entities", "last_seen", {"entity": ["mug"]}),
        ("entities", "was_at", {"entity": "mug", "t_ns": 0.5}),
        ("spatial", "near", {"position": {"x": 1}}),
        ("timeline", "timeline", {}),
        ("tracks", "tracks", {"no_such": 1}),
    ],
)
def test_the_same_error_on_both_sides(
    running: Running, client: Client, bank: str, question: str, arguments: dict[str, Any]
) -> None:
    if not arguments:  # right: the service answers on after every refusal
        assert client.query(bank, question) == running.memory.query(bank, question)
        return
    with pytest.raises(QueryError) as here:
        running.memory.query(bank, question, **arguments)
    with pytest.raises(QueryError) as there:
        client.query(bank, question, **arguments)
    assert there.value.message == here.value.message and f"{bank}.{question}" in here.value.message
    assert client.query("timeline", "timeline") == []
