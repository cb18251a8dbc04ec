"""A chat server that speaks the OpenAI protocol over real HTTP and follows a script, faults included."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Asked = dict[str, Any]
Turn = Callable[["Handler", Asked], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server  # type: ignore[assignment]

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.json(200, {"object": "list", "data": [{"id": "tiny"}, {"id": "large"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.headers.append(dict(self.headers))
        with self.server.lock:
            script = self.server.script
            turn = script.pop(0) if len(script) > 1 else script[0]
        turn(self, body)

    def json(self, status: int, value: object, **headers: str) -> None:
        self.raw(status, json.dumps(value).encode(), **headers)

    def raw(self, status: int, content: bytes, *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = self.close_connection or length is not None


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Sequence[Turn]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.asked: list[Asked] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up in the middle is part of the tests


@contextmanager
def chat_server(*script: Turn) -> Iterator[Server]:
    """The turns in order; the last one repeats."""
    server = Server(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


# -- turns


def says(text: str | None, *, finish: str = "stop", usage: bool = True) -> Turn:
    def turn(handler: Handler, asked: Asked) -> None:
        message = {"role": "assistant", "content": text}
        answer: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
        if usage:
            answer["usage"] = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
        handler.json(200, answer)

    return turn


def replies(answer: Callable[[Asked], str]) -> Turn:
    """Answers by what was asked."""
    return lambda handler, asked: says(answer(asked))(handler, asked)


def fails(status: int, value: object = None, **headers: str) -> Turn:
    return lambda handler, asked: handler.json(status, value or {"error": {"message": "no"}}, **headers)


def sends(content: bytes, *, length: int | None = None) -> Turn:
    return lambda handler, asked: handler.raw(200, content, length=length)


def hangs(seconds: float) -> Turn:
    return lambda handler, asked: time.sleep(seconds)


def drips(seconds: float) -> Turn:
    """An answer without an end: a byte every 10 ms."""

    def turn(handler: Handler, asked: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.01)

    return turn


def refuses_schemas(text: str, known: str) -> Turn:
    """400 until ``response_format`` is what this server knows (``json_object`` or ``none``)."""

    def turn(handler: Handler, asked: Asked) -> None:
        form = asked.get("response_format", {}).get("type", "none")
        if form == known or form == "none":
            says(text)(handler, asked)
        else:
            handler.json(400, {"error": {"message": f"response_format {form} is unknown"}})

    return turn
