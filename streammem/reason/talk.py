"""Turns with a chat model inside a budget: replies read by schema, repaired once, then counted.

Shared by everything that asks a model: the ``llm`` reasoner, the captioner, the judge of an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from streammem.errors import AccessDenied, ModelUnavailable, ServiceBusy, ServiceUnreachable, StreammemError
from streammem.printable import printable
from streammem.reason import prompts
from streammem.reason.base import ChatModel, Image, Message, Purse, Reply
from streammem.reason.replies import problems, read_object

LEAST_REPLY = 48
"""Tokens that any of our objects needs."""
MOST_REPLY = 512
CHARACTERS_A_TOKEN = 3
"""Of UTF-8, to estimate before sending: English has four, so that the budget is kept rather than reached."""

Check = Callable[[Mapping[str, Any]], str]
"""What is wrong with an object that fits its schema, in one sentence; empty where nothing is."""


class Talk:
    """``patience``: faults of the model in a row after which it isn't asked any more; ``failure`` is the last of them.
    A fault that no repetition mends (no such model, a refused key, nobody there) ends it at once."""

    def __init__(self, model: ChatModel, *, system: str = prompts.SYSTEM, patience: int = 1) -> None:
        self.model, self.system = model, system
        self.failure: StreammemError | None = None
        self.fault: StreammemError | None = None
        """What the last turn failed with, None where it was answered."""
        self.why: Literal["", "budget", "fault", "unreadable"] = ""
        """Why the last :meth:`ask` gave nothing."""
        self.complaint = ""
        """What was wrong with the last reply that couldn't be read."""
        self.notes: list[str] = []
        self._patience, self._faults, self._spoke = patience, 0, False

    def ask(
        self,
        schema: Mapping[str, Any],
        content: Sequence[str | Image],
        purse: Purse,
        *,
        check: Check | None = None,
        plain: str = "",
        seed: int = 0,
        most: int = MOST_REPLY,
    ) -> dict[str, Any] | None:
        """One object of the schema that passes ``check``, repaired once; None where the model, the budget or its words
        don't give one (``why``).

        ``plain`` names a field: a text that isn't JSON at all is taken for it, and models that can't be held to JSON
        aren't asked for any. ``most``: tokens of a reply. Raises what the model's very first call raises: a person must
        hear why."""
        self.why, self.complaint = ("fault" if self.failure is not None else ""), ""
        if self.failure is not None:
            return None
        messages = [Message("system", (self.system,)), Message("user", tuple(content))]
        sent = schema if self.model.limits.json_schema or not plain else None
        for attempt in range(2):
            reply = self._turn(messages, sent, purse, seed, most)
            if reply is None:
                return None
            data, self.complaint = self._read(reply, schema, check, plain)
            if data is not None:
                return data
            if attempt == 0:
                ending = "Reply with the text alone." if plain else "Reply with the JSON object alone."
                heard = printable(reply.text, 2000) or "(nothing)"
                again = Message("user", (f"That can't be read: {self.complaint}. {ending}",))
                messages = [*messages, Message("assistant", (heard,)), again]
        purse.pay(parse_failures=1)
        self.why = "unreadable"
        self.notes.append("a reply of the model couldn't be read, twice")
        return None

    @staticmethod
    def _read(
        reply: Reply, schema: Mapping[str, Any], check: Check | None, plain: str
    ) -> tuple[dict[str, Any] | None, str]:
        data = reply.data if reply.data is not None else read_object(reply.text, schema)
        if data is None and plain and not reply.text.lstrip().startswith(("{", "```")):
            # Prose that the deadline or the limit of tokens ended is kept as far as its last sentence.
            ends = max(reply.text.rfind(mark) for mark in ".!?。！？") + 1
            if reply.finish == "length" and not ends:
                return None, "it was cut off"
            data = {plain: reply.text[:ends] if reply.finish == "length" else reply.text}
        if data is None:
            free = read_object(reply.text)
            wrong = problems(free, schema)[:3] if free is not None else ["it holds no JSON object"]
            return None, "; ".join(wrong)
        wrong_in = check(data) if check is not None else ""
        return (None, wrong_in) if wrong_in else (dict(data), "")

    def _turn(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, purse: Purse, seed: int, most: int
    ) -> Reply | None:
        asked = estimate(messages)
        room = purse.left("tokens") - asked
        if purse.exhausted("calls", "seconds") or room < LEAST_REPLY:
            self.why = "budget"
            self.notes.append("no budget for another call to the model")
            return None
        left = purse.left("seconds")
        # By an estimate alone nothing is refused: a prompt that really is too long is the model's own typed error.
        most = int(min(most, room, max(LEAST_REPLY, self.model.limits.context_tokens - asked)))
        try:
            reply = self.model.chat(
                messages,
                schema=schema,
                max_tokens=most,
                seed=seed,
                timeout_s=None if left == float("inf") else left,
            )
        except StreammemError as error:
            purse.pay(calls=1)
            self.fault, self.why = error, "fault"
            self._faults += 1
            final = isinstance(error, (AccessDenied, ModelUnavailable, ServiceUnreachable))
            if final or self._faults >= self._patience:
                self.failure = error
            if not self._spoke and not isinstance(error, ServiceBusy):
                raise  # nothing was got from it: a person must hear why
            rest = "; the rest was done without it" if self.failure is not None else ""
            self.notes.append(f"the model failed: {error.message}{rest}")
            return None
        self._spoke, self._faults, self.fault = True, 0, None
        purse.pay(calls=1, tokens=reply.tokens_in + reply.tokens_out)
        return reply


def estimate(messages: Sequence[Message]) -> int:
    """Tokens of a prompt, rather too many: a picture counts 800 (1,024 x 768 in common vision models)."""
    pieces = [piece for message in messages for piece in message.content]
    text = sum(len(piece.encode("utf-8", "replace")) for piece in pieces if isinstance(piece, str))
    return text // CHARACTERS_A_TOKEN + 800 * sum(isinstance(piece, Image) for piece in pieces) + 8 * len(messages)
