"""The arguments of a bank's question, checked against its annotations before it is asked.

A question's arguments come from a caller, a wire or a language model. What a question says it takes is its schema, so
one check here serves all of them: a wrong type is a QueryError that names bank, question, argument and what is wanted.
"""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, get_type_hints

import msgspec

from streammem.banks.base import Question
from streammem.errors import QueryError

INT64 = 2**63


class _Schema(NamedTuple):
    signature: inspect.Signature
    types: Mapping[str, Any]
    shown: str


def checked(bank: str, name: str, question: Question, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords ``given`` as the question takes them: NumPy's numbers and arrays plain, sequences as lists.

    Numbers must be finite, integers of 64 bits, text must be Unicode. Raises QueryError."""
    schema = _schema(getattr(question, "__func__", question), inspect.ismethod(question))
    try:
        schema.signature.bind(**given)
    except TypeError as error:
        raise QueryError(f"{bank}.{name}: {error}", hint=f"its arguments: {schema.shown}") from None
    return {key: _converted(f"{bank}.{name}", key, value, schema) for key, value in given.items()}


def _converted(where: str, key: str, value: Any, schema: _Schema) -> Any:
    plain = value.tolist() if hasattr(value, "tolist") else value
    wanted = schema.types.get(key, Any)
    try:
        if not _sound(plain):
            raise msgspec.ValidationError("not a number, an integer beyond 64 bits, or no Unicode")
        return msgspec.convert(plain, wanted)
    except (msgspec.ValidationError, RecursionError) as error:
        kind = schema.signature.parameters[key].annotation if key in schema.signature.parameters else "plain"
        raise QueryError(
            f"{where}: the argument {key} is {reprlib.repr(value)}, not {kind}: {error}",
            hint=f"its arguments: {schema.shown}",
        ) from None


def _sound(value: Any) -> bool:
    """Whether every number and text in plain data can be reckoned with."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -INT64 <= value < INT64
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, Mapping):
        return all(_sound(key) and _sound(part) for key, part in value.items())
    return not isinstance(value, Sequence) or isinstance(value, bytes) or all(_sound(part) for part in value)


@lru_cache(maxsize=512)
def _schema(function: Question, bound: bool) -> _Schema:
    """Without the bank itself and the reader, which the memory gives."""
    signature = inspect.signature(function)
    own = list(signature.parameters.values())[2 if bound else 1 :]
    signature = signature.replace(parameters=own, return_annotation=inspect.Signature.empty)
    try:
        types = get_type_hints(function)
    except (NameError, TypeError):  # a third party's, with names that exist for type checkers alone
        types = {}
    return _Schema(signature, {part.name: types[part.name] for part in own if part.name in types}, str(signature))
