"""A chat model with a purse: what an episode's answers may cost at most, and what they cost.

Bad replies are counted, not hidden: ``spent.parse_failures`` are texts that weren't the JSON asked for, ``refused``
calls that were not made because the budget was spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streammem.errors import BudgetSpent, ServiceError
from streammem.reason.base import Budget, ChatModel, Limits, Message, Purse, Reply


class Metered:
    """A ``ChatModel``. ``budget`` holds from one :meth:`begin` to the next; of its names calls, tokens and seconds
    count. A call when something is used up raises BudgetSpent; the last one is held to what is left."""

    def __init__(self, model: ChatModel, budget: Budget | None = None) -> None:
        self.model = model
        self.budget = budget or Budget()
        self.begin()

    def begin(self) -> None:
        """A new episode, a full purse."""
        self.purse = Purse(self.budget)
        self.refused = self.errors = self.bad_frames = 0
        self._busy_s = 0.0

    @property
    def id(self) -> str:
        return self.model.id

    @property
    def limits(self) -> Limits:
        return self.model.limits

    def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 512,
        seed: int = 0,
        timeout_s: float | None = None,
    ) -> Reply:
        """As the model's own, within what is left. Raises BudgetSpent where nothing is."""
        left_s = float("inf") if self.budget.seconds is None else self.budget.seconds - self._busy_s
        spent = "seconds" if left_s <= 0 else self.purse.exhausted("calls", "tokens")
        if spent:
            self.refused += 1
            raise BudgetSpent(f"the budget's {spent} are spent", hint="--budget sets more")
        tokens = self.purse.left("tokens")
        limits_s = [value for value in (timeout_s, left_s) if value is not None and value != float("inf")]
        self.purse.pay(calls=1)
        began = self.purse.tick().seconds
        try:
            reply = self.model.chat(
                messages,
                schema=schema,
                max_tokens=int(min(max_tokens, tokens)),
                seed=seed,
                timeout_s=min(limits_s) if limits_s else None,
            )
        except ServiceError:
            self.errors += 1
            raise
        finally:
            self._busy_s += self.purse.tick().seconds - began
        self.purse.pay(tokens=reply.tokens_in + reply.tokens_out)
        if schema is not None and reply.data is None:
            self.purse.pay(parse_failures=1)
        return reply

    def costs(self) -> dict[str, float]:
        """Since :meth:`begin`, for a report."""
        spent = self.purse.spent
        return {
            "calls": spent.calls,
            "tokens": spent.tokens,
            "seconds": round(self._busy_s, 3),
            "unreadable": spent.parse_failures,
            "bad_frames": self.bad_frames,
            "errors": self.errors,
            "refused": self.refused,
        }
