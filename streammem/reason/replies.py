"""A model's text as the JSON object that was asked for: strict where it matters, patient about the wrapping.

Models wrap JSON in prose and code fences, cut it off, or say ``"False"`` where a boolean was asked for. The first
complete object of the text is taken and checked against the schema's types; nothing is guessed and nothing is
evaluated. What can't be read is None: the caller asks once more, then counts a failure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST = 200_000
"""Characters of a reply that are looked at."""
_OPENINGS = 50
"""Braces that are tried as the beginning of the object: a page of prose full of them isn't a reply."""
TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def read_object(text: str, schema: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The first JSON object in ``text`` that fits ``schema`` (None: any), or None."""
    for found in _objects(text[:LONGEST]):
        if schema is None or not problems(found, schema):
            return found
    return None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder(parse_constant=_refuse)
    start = -1
    for _ in range(_OPENINGS):
        start = text.find("{", start + 1)
        if start < 0:
            return
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value
            start = end - 1


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def problems(value: object, schema: Mapping[str, Any], where: str = "the reply") -> list[str]:
    """What is wrong with ``value`` by the part of JSON Schema that our prompts use: type, enum, required, properties,
    items, minimum, maximum, maxItems. One sentence each; empty if it fits."""
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else list(kinds or ())
    if names and not any(of_type(value, name) for name in names):
        return [f"{where} is {_kind(value)}, not {' or '.join(names)}"]
    found: list[str] = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where} is none of {', '.join(map(repr, schema['enum']))}")
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        found += [f"{where} lacks {name!r}" for name in schema.get("required", ()) if name not in value]
        for name, part in inner.items():
            if name in value:
                found += problems(value[name], part, f"{name!r}")
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            found.append(f"{where} has {len(value)} entries, at most {schema['maxItems']} are read")
        if "items" in schema:
            for index, entry in enumerate(value):
                found += problems(entry, schema["items"], f"entry {index + 1} of {where}")
    elif of_type(value, "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{where} is {value}, out of range")
    return found


def of_type(value: object, name: str) -> bool:
    """Whether a plain value is of a type of JSON Schema."""
    # True is an int in Python and no number in JSON.
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, TYPES.get(name, (object,)))


def _kind(value: object) -> str:
    return next((name for name in TYPES if of_type(value, name)), type(value).__name__)
