"""The sentence encoder is opened once a process, by whoever is first; opening it ahead changes nothing but the time."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from perception.encoders import minilm, weights
from perception.encoders.minilm import MiniLM
from streammem.errors import ModelUnavailable


def finish() -> None:
    for thread in threading.enumerate():
        if thread.name == "minilm":
            thread.join(30)


def test_one_session_for_all_and_the_same_vectors() -> None:
    first, second = MiniLM(), MiniLM()
    try:
        expected = first.embed(["a red car"])
    except ModelUnavailable as error:
        pytest.skip(str(error))
    before = dict(minilm._opened)
    second.prefetch()
    finish()
    assert np.array_equal(second.embed(["a red car"]), expected)
    assert minilm._opened == before


def test_nothing_is_converted_ahead(tmp_path: Path) -> None:
    MiniLM(cache=tmp_path).prefetch()
    finish()
    assert list(tmp_path.rglob("*")) == []


def test_what_is_wrong_is_raised_where_it_is_used(tmp_path: Path) -> None:
    folder = weights.prepared_folder(weights.MINILM, minilm._RECIPE, cache=tmp_path)
    folder.mkdir(parents=True)
    for name in minilm._FILES:
        (folder / name).write_bytes(b"no model")
    (folder / "sizes.json").write_bytes(b"{" + b",".join(b'"%s":8' % n.encode() for n in minilm._FILES) + b"}")
    model = MiniLM(cache=tmp_path)
    model.prefetch()
    finish()
    with pytest.raises(ModelUnavailable, match="is damaged"):
        model.embed(["a"])
