"""The chat client against a real HTTP server that misbehaves in every way that servers do."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from chat_server import Turn, chat_server, drips, fails, hangs, refuses_schemas, says, sends
from hypothesis import given
from hypothesis import strategies as st

from streammem.errors import (
    AccessDenied,
    ConfigError,
    DeadlineExceeded,
    ModelUnavailable,
    ProtocolError,
    ServiceBusy,
    ServiceUnreachable,
    StreammemError,
)
from streammem.reason.base import Image, Limits, Message
from streammem.reason.models import Endpoint
from streammem.reason.replies import read_object

SCHEMA = {
    "type": "object",
    "properties": {"confident": {"type": "boolean"}, "answer": {"type": "string"}},
    "required": ["confident"],
}
HELLO = [Message("system", ("be brief",)), Message("user", ("hello",))]


def endpoint(url: str, **options: object) -> Endpoint:
    return Endpoint(url, "tiny", sleep=lambda s: None, **{"timeout_s": 5.0, **options})  # type: ignore[arg-type]


def test_text_and_cost() -> None:
    with chat_server(says("hi")) as server:
        model = endpoint(server.url)
        reply = model.chat(HELLO, seed=3)
    assert (reply.text, reply.data, reply.tokens_in, reply.tokens_out, reply.finish) == ("hi", None, 100, 7, "stop")
    (sent,) = server.asked
    assert sent["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert (sent["model"], sent["temperature"], sent["seed"], sent["stream"]) == ("tiny", 0, 3, False)
    assert [(call.status, call.tokens_in, call.tokens_out) for call in model.calls] == [(200, 100, 7)]


def test_pictures_are_sent_as_jpeg() -> None:
    red = Image(pixels=np.full((8, 8, 3), (255, 0, 0), np.uint8))
    with chat_server(says("red")) as server:
        endpoint(server.url).chat([Message("user", ("what?", red))])
    text, picture = server.asked[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "what?"}
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


def test_more_pictures_than_the_model_takes() -> None:
    with pytest.raises(ModelUnavailable, match="takes 0 pictures, 1 were"):
        endpoint("http://127.0.0.1:9", limits=Limits()).chat([Message("user", (Image(jpeg=b"x"),))])


def test_json_is_asked_for_and_read() -> None:
    with chat_server(says('Sure! ```json\n{"confident": true, "answer": "at {2:10}"}\n```')) as server:
        reply = endpoint(server.url).chat(HELLO, schema=SCHEMA)
    assert reply.data == {"confident": True, "answer": "at {2:10}"}
    assert server.asked[0]["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize("known", ["json_object", "none"])
def test_servers_that_know_less_of_json_are_asked_for_less_once(known: str) -> None:
    with chat_server(refuses_schemas('{"confident": false}', known)) as server:
        model = endpoint(server.url)
        assert model.chat(HELLO, schema=SCHEMA).data == {"confident": False}
        before = len(server.asked)
        assert model.chat(HELLO, schema=SCHEMA).data == {"confident": False}
        assert len(server.asked) == before + 1


PASSING: list[tuple[str, Turn]] = [
    ("500", fails(500)),
    ("503", fails(503)),
    ("429", fails(429, Retry_After="0")),
    ("200 with an error", fails(200, {"error": {"message": "overloaded"}})),
    ("truncated JSON", sends(b'{"choices": [{"mess')),
    ("connection cut", sends(b'{"choices"', length=1000)),
    ("not JSON", sends(b"<html>gateway</html>")),
    ("a list", sends(b"[]")),
]


@pytest.mark.parametrize(("name", "turn"), PASSING, ids=[name for name, _ in PASSING])
def test_faults_that_pass_are_tried_again(name: str, turn: Turn) -> None:
    with chat_server(turn, turn, says("hi")) as server:
        model = endpoint(server.url)
        assert model.chat(HELLO).text == "hi"
    assert len(server.asked) == 3
    assert [bool(call.error) for call in model.calls] == [True, True, False]


LASTING: list[tuple[str, Turn, type[StreammemError], str]] = [
    ("500", fails(500), ProtocolError, "failed (500): "),
    ("429", fails(429), ServiceBusy, "too much to do"),
    ("200 with an error", fails(200, {"error": "overloaded"}), ProtocolError, "answered with an error: "),
    ("truncated", sends(b'{"choi'), ProtocolError, "no JSON object"),
    ("nothing", sends(b""), ProtocolError, "no JSON object"),
    ("no choice", sends(b'{"choices": []}'), ProtocolError, "without a choice"),
    ("a number", sends(b'{"choices": [{"message": {"content": 5}}]}'), ProtocolError, "int for a text"),
    ("401", fails(401), AccessDenied, "refuses the key"),
    ("404", fails(404), ModelUnavailable, "has no model 'tiny'"),
    ("400", fails(400), ProtocolError, "refuses the request (400)"),
    ("redirect", fails(302, Location="http://127.0.0.1:1/"), ProtocolError, "refuses the request (302)"),
    ("endless", sends(b" " * (5 << 20)), ProtocolError, "more than 4 MB"),
]


@pytest.mark.parametrize(("name", "turn", "kind", "text"), LASTING, ids=[row[0] for row in LASTING])
def test_faults_that_last_are_typed_and_bounded(name: str, turn: Turn, kind: type[StreammemError], text: str) -> None:
    with chat_server(turn) as server, pytest.raises(kind) as caught:
        endpoint(server.url, key="sk-secret").chat(HELLO)
    assert text in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert len(server.asked) <= 3


@pytest.mark.parametrize("turn", [hangs(1.5), drips(1.5)], ids=["silent", "dripping"])
def test_a_slow_server_ends_at_the_deadline(turn: Turn) -> None:
    with chat_server(turn) as server:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            endpoint(server.url).chat(HELLO, timeout_s=0.3)
        assert time.monotonic() - begun < 1.2


def test_nobody_there() -> None:
    with pytest.raises(ServiceUnreachable, match="can't be reached"):
        endpoint("127.0.0.1:9").chat(HELLO)


def test_a_pause_longer_than_the_deadline_isn_t_waited_for() -> None:
    with chat_server(fails(429, Retry_After="3600")) as server, pytest.raises(ServiceBusy):
        Endpoint(server.url, "tiny", timeout_s=2.0).chat(HELLO)
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["ftp://host/", "http://", "::::"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError):
        Endpoint(url, "tiny")


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with chat_server(fails(401, {"error": "bad key sk-secret"})) as server, pytest.raises(AccessDenied) as caught:
        endpoint(server.url).chat(HELLO)
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(caught.value)


def test_content_none_and_a_cut_answer() -> None:
    with chat_server(says(None), says('{"confident": tr', finish="length")) as server:
        model = endpoint(server.url)
        assert model.chat(HELLO).text == ""
        cut = model.chat(HELLO, schema=SCHEMA)
    assert (cut.data, cut.finish) == (None, "length")


def test_probe_finds_out_what_the_server_can() -> None:
    def blind(handler: object, asked: dict[str, object]) -> None:
        if "image_url" in json.dumps(asked):
            fails(400)(handler, asked)  # type: ignore[arg-type]
        else:
            refuses_schemas('{"ok": true}', "json_object")(handler, asked)  # type: ignore[arg-type]

    with chat_server(blind) as server:
        model = endpoint(server.url)
        found = model.probe()
    assert found.models == ("tiny", "large")
    assert (found.limits.images, found.limits.json_schema) == (0, False)
    assert model.limits == found.limits


READ = [
    ('{"a": 1}', {"a": 1}),
    ('I think {not json} but {"a": {"b": [1, 2]}} fits', {"a": {"b": [1, 2]}}),
    ('{"a": NaN}', None),
    ("{" * 10_000, None),
    ('{"a": 1', None),
    ("", None),
    ('["a"]', None),
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_the_first_complete_object_is_read(text: str, expected: object) -> None:
    assert read_object(text) == expected


@pytest.mark.parametrize(
    "text",
    ['{"confident": "False"}', '{"confident": 1}', '{"answer": "x"}', '{"confident": true, "answer": 5}'],
)
def test_wrong_types_are_no_answer(text: str) -> None:
    assert read_object(text, SCHEMA) is None


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert read_object("{" + text, SCHEMA) is None or True


@given(st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=20)))
def test_an_object_is_found_in_prose(value: dict[str, object]) -> None:
    assert read_object("Here it is: " + json.dumps(value) + " Good luck!") == value
