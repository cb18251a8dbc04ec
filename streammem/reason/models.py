"""Chat models behind any OpenAI-compatible endpoint (vLLM, Ollama, llama.cpp, a cloud): text, pictures, JSON.

Nothing here trusts the other side: every call has a deadline for the whole answer, a cap on its bytes and a bounded
number of tries, an error inside a 200 is an error, and what it said is data. A key is sent and never shown.
"""

from __future__ import annotations

import base64
import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from streammem.errors import (
    AccessDenied,
    ConfigError,
    DeadlineExceeded,
    ModelUnavailable,
    ProtocolError,
    ServiceBusy,
    ServiceError,
    ServiceUnreachable,
)
from streammem.printable import printable
from streammem.reason.base import Image, Limits, Message, Reply
from streammem.reason.replies import read_object
from streammem.redact import redact

if TYPE_CHECKING:
    import httpx2

KEY_VARIABLES = ("STREAMMEM_API_KEY", "OPENAI_API_KEY")
LONGEST_ANSWER = 4 << 20
"""Bytes of an HTTP answer: 100,000 tokens of text have half a megabyte."""
LONGEST_PAUSE_S = 20.0
"""However long a server asks us to wait (Retry-After), the question has a deadline too."""
JPEG_QUALITY = 85
_JSON_FORMS = ("json_schema", "json_object", "none")


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """One HTTP request in the cost log. ``tokens`` are the server's own count, or a quarter of the characters."""

    status: int
    seconds: float
    tokens_in: int = 0
    tokens_out: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What :meth:`Endpoint.probe` found out: the models the server names, and what the chosen one can take."""

    models: tuple[str, ...]
    limits: Limits
    seconds: float


class _TryAgain(Exception):
    """A fault that may pass. ``final`` is what becomes of it when the tries are used up."""

    def __init__(self, final: ServiceError, pause_s: float | None = None) -> None:
        super().__init__(final.message)
        self.final = final
        self.pause_s = pause_s


class Endpoint:
    """A chat model at ``url`` (``http://host:port`` or ``.../v1``).

    ``temperature`` 0 is greedy. ``clock``, ``sleep`` and ``jitter`` are passed in so that a test can hold them. Raises
    ConfigError for an address
    that isn't one; nothing is sent before the first call."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        tries: int = 3,
        temperature: float = 0.0,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{redact(url)!r} is no address of a model", hint="http://HOST:PORT or https://HOST/v1")
        if not model:
            raise ConfigError(f"no model was named for {redact(url)}", hint="--model NAME, as the server calls it")
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        self.url = parts._replace(path=path or "/v1", query="", fragment="").geturl()
        self.model = model
        self.calls: list[Call] = []
        self._limits = limits or Limits(images=8, json_schema=True)
        self._form = 0 if self._limits.json_schema else 2
        self._key = key if key is not None else next((os.environ[k] for k in KEY_VARIABLES if os.environ.get(k)), "")
        self._timeout_s, self._tries, self._temperature = timeout_s, max(1, tries), temperature
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
        self._client: httpx2.Client | None = None

    @property
    def id(self) -> str:
        return f"{self.model}@{redact(self.url)}"

    @property
    def limits(self) -> Limits:
        return self._limits

    def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 512,
        seed: int = 0,
        timeout_s: float | None = None,
    ) -> Reply:
        """One turn. ``timeout_s`` is for everything, tries and pauses included; never longer than the endpoint's own.

        Raises ServiceUnreachable, DeadlineExceeded, ServiceBusy (429 to the end), AccessDenied (401, 403),
        ModelUnavailable (404, or pictures for a model that takes none), ProtocolError (an answer that isn't one)."""
        pictures = sum(isinstance(piece, Image) for message in messages for piece in message.content)
        if pictures > self._limits.images:
            raise ModelUnavailable(
                f"{self.model} takes {self._limits.images} pictures, {pictures} were to be sent",
                hint="use a model that sees, or fewer frames",
            )
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [_as_sent(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": self._temperature,
            "seed": seed,
            "stream": False,
        }
        deadline = self._clock() + (self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s))
        while True:
            form = _JSON_FORMS[self._form]
            asked = {**body, **_format(form, schema)}
            try:
                found = self._request("POST", "/chat/completions", asked, deadline)
                break
            except _NotUnderstood as error:
                # Servers differ in how much of structured output they know: ask for less, and remember it.
                if schema is None or self._form == len(_JSON_FORMS) - 1:
                    raise ProtocolError(str(error), hint="see the server's log") from None
                self._form += 1
        return self._reply(found, messages, schema)

    def _reply(self, found: dict[str, Any], messages: Sequence[Message], schema: Mapping[str, Any] | None) -> Reply:
        try:
            choice = found["choices"][0]
            text = choice["message"]["content"] or ""
            finish = str(choice.get("finish_reason") or "stop")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ProtocolError(
                f"{redact(self.url)} answered without a choice: {_shown(found)}", hint="is it a chat endpoint?"
            ) from None
        if not isinstance(text, str):
            raise ProtocolError(f"{redact(self.url)} answered with {type(text).__name__} for a text")
        usage = found.get("usage") if isinstance(found.get("usage"), dict) else {}
        asked = sum(len(piece) for m in messages for piece in m.content if isinstance(piece, str))
        tokens_in = _count(usage, "prompt_tokens", asked // 4)
        tokens_out = _count(usage, "completion_tokens", len(text) // 4)
        self.calls[-1] = msgspec.structs.replace(self.calls[-1], tokens_in=tokens_in, tokens_out=tokens_out)
        data = read_object(text, schema) if schema is not None else None
        return Reply(text, data, tokens_in, tokens_out, self.calls[-1].seconds, finish)

    def probe(self) -> Found:
        """Ask what is there: its models, whether the chosen one takes a picture and knows JSON schemas. At most four
        requests of a few tokens. The result is used from then on. Raises as :meth:`chat` does."""
        begun = self._clock()
        deadline = begun + self._timeout_s
        names: tuple[str, ...] = ()
        try:
            listed = self._request("GET", "/models", None, deadline).get("data")
            names = tuple(str(entry.get("id")) for entry in listed or () if isinstance(entry, dict))[:100]
        except (_NotUnderstood, ModelUnavailable, ProtocolError):
            pass  # not every server lists its models
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
        said = Message("user", ('Reply with {"ok": true}',))
        structured = self.chat([said], schema=schema, max_tokens=32).data is not None and self._form == 0
        self._limits = msgspec.structs.replace(self._limits, images=1, json_schema=structured)
        try:
            self.chat([Message("user", ("What colour is this?", Image(pixels=_grey())))], max_tokens=8)
            images = 8
        except (ModelUnavailable, ProtocolError):
            images = 0
        self._limits = msgspec.structs.replace(self._limits, images=images)
        return Found(names, self._limits, self._clock() - begun)

    # -- one request

    def _request(self, verb: str, path: str, body: dict[str, Any] | None, deadline: float) -> dict[str, Any]:
        for attempt in range(self._tries):
            if self._clock() >= deadline:
                raise DeadlineExceeded(f"{redact(self.url)} didn't answer in time", hint="give the question more time")
            begun = self._clock()
            status, problem = 0, ""
            try:
                status, content = self._exchange(verb, path, body, deadline)
                return self._read(status, content)
            except _TryAgain as fault:
                problem = str(fault)
                if attempt + 1 == self._tries:
                    raise fault.final from None
                pause = fault.pause_s if fault.pause_s is not None else 0.5 * 2**attempt * (1 + self._jitter())
                pause = min(pause, LONGEST_PAUSE_S)
                if self._clock() + pause >= deadline:
                    raise fault.final from None
                self._sleep(pause)
            except (ServiceError, AccessDenied, ModelUnavailable, _NotUnderstood) as error:
                problem = str(error)
                raise
            finally:
                self.calls.append(Call(status, round(self._clock() - begun, 6), error=problem[:200]))
        raise AssertionError("unreachable")

    def _exchange(self, verb: str, path: str, body: dict[str, Any] | None, deadline: float) -> tuple[int, bytes]:
        """Send, and read the whole answer before the deadline: a server that drips a byte a second has no end."""
        import httpx2

        if self._client is None:
            self._client = httpx2.Client(follow_redirects=False)
        headers = {"Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        left = max(0.01, deadline - self._clock())
        timeout = httpx2.Timeout(left, connect=min(left, 10.0))
        where = redact(self.url)
        try:
            with self._client.stream(verb, self.url + path, json=body, headers=headers, timeout=timeout) as answer:
                content = bytearray()
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > LONGEST_ANSWER:
                        raise ProtocolError(f"{where} sent more than {LONGEST_ANSWER >> 20} MB for one answer")
                    if self._clock() >= deadline:
                        raise DeadlineExceeded(f"{where} didn't end its answer in time", hint="give it more time")
                if answer.status_code == 429:
                    busy = ServiceBusy(f"{where} has too much to do (429)", hint="try again later")
                    raise _TryAgain(busy, _seconds(answer.headers.get("retry-after")))
                return answer.status_code, bytes(content)
        except httpx2.TimeoutException:
            raise DeadlineExceeded(f"{where} didn't answer in time", hint="give the question more time") from None
        except httpx2.TransportError as error:
            text = f"{where} can't be reached: {printable(str(error), 200) or type(error).__name__}"
            raise _TryAgain(ServiceUnreachable(text, hint="is the server running there?")) from None
        except httpx2.InvalidURL as error:
            raise ConfigError(f"{where} is no address: {error}") from None

    def _read(self, status: int, content: bytes) -> dict[str, Any]:
        where = redact(self.url)
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        said = _shown(found if found is not None else content.decode("utf-8", "replace"))
        said = said.replace(self._key, "***") if self._key else said
        if status in (401, 403):
            raise AccessDenied(f"{where} refuses the key ({status})", hint=f"set {KEY_VARIABLES[0]}")
        if status == 404:
            raise ModelUnavailable(f"{where} has no model {self.model!r} or no chat there (404): {said}")
        if status >= 500:
            raise _TryAgain(ProtocolError(f"{where} failed ({status}): {said}", hint="see the server's log"))
        if status >= 300:
            raise _NotUnderstood(f"{where} refuses the request ({status}): {said}")
        if not isinstance(found, dict):
            raise _TryAgain(ProtocolError(f"{where} answered with no JSON object: {said}", hint="is it a chat API?"))
        if found.get("error"):
            raise _TryAgain(ProtocolError(f"{where} answered with an error: {said}", hint="see the server's log"))
        return found

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class _NotUnderstood(Exception):
    """The server refuses this request (400, 422): perhaps for its response_format."""


def _format(form: str, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None or form == "none":
        return {}
    if form == "json_object":
        return {"response_format": {"type": "json_object"}}
    shape = {"name": "reply", "schema": dict(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": shape}}


def _as_sent(message: Message) -> dict[str, Any]:
    """A message of text alone goes as text: small servers know no list of parts."""
    if all(isinstance(piece, str) for piece in message.content):
        return {"role": message.role, "content": "\n".join(map(str, message.content))}
    parts: list[dict[str, Any]] = []
    for piece in message.content:
        if isinstance(piece, Image):
            url = "data:image/jpeg;base64," + base64.b64encode(jpeg_of(piece)).decode("ascii")
            parts.append({"type": "image_url", "image_url": {"url": url}})
        else:
            parts.append({"type": "text", "text": piece})
    return {"role": message.role, "content": parts}


def jpeg_of(image: Image) -> bytes:
    """The picture as a JPEG. Raises ConfigError for one that is empty."""
    if image.jpeg is not None:
        return image.jpeg
    if image.pixels is None or image.pixels.ndim != 3 or not image.pixels.size:
        raise ConfigError("a picture for a model has no pixels")
    import cv2

    done, buffer = cv2.imencode(".jpg", image.pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ConfigError("a picture can't be written as JPEG")
    return bytes(buffer)


def _grey() -> Any:
    import numpy as np

    return np.full((32, 32, 3), 128, np.uint8)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return printable(redact(text), 200)


def _count(usage: object, name: str, otherwise: int) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else otherwise


def _seconds(header: str | None) -> float | None:
    try:
        value = float(header or "")
    except ValueError:
        return None
    return value if 0 <= value < 86_400 else None
