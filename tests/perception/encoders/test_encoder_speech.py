"""Speech, where the extra is installed: real recordings, silence, cuts."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perception.encoders.speech import SpeechReader
from perception.frames import AUDIO_RATE, AudioChunk
from streammem.errors import ModelUnavailable

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "speech"


@pytest.fixture(scope="module")
def reader(model_cache: Path) -> SpeechReader:
    found = SpeechReader(cache=model_cache)
    try:
        found.check()
    except ModelUnavailable as error:
        pytest.skip(f"speech is off: {error}")
    return found


def chunks(samples: np.ndarray, size: int = AUDIO_RATE, start_ns: int = 0) -> Iterator[AudioChunk]:
    for first in range(0, len(samples), size):
        yield AudioChunk(samples[first : first + size], start_ns + first * 1_000_000_000 // AUDIO_RATE)


def test_silence_and_noise_say_nothing(reader: SpeechReader) -> None:
    silence = np.zeros(AUDIO_RATE * 35, np.float32)
    hiss = np.random.default_rng(0).normal(0, 0.01, AUDIO_RATE * 12).astype(np.float32)
    assert list(reader.transcribe(chunks(silence))) == []
    assert list(reader.transcribe(chunks(hiss))) == []
    assert list(reader.transcribe(iter(()))) == []


@pytest.mark.data
def test_hears_a_known_sentence_whatever_the_chunks(reader: SpeechReader) -> None:
    path = DATA / "jfk.wav"
    if not path.is_file():
        pytest.skip("the shared recordings aren't here")
    with wave.open(str(path)) as file:
        assert file.getframerate() == AUDIO_RATE
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    start = 5_000_000_000
    spoken = list(reader.transcribe(chunks(samples, start_ns=start)))
    text = " ".join(s.text for s in spoken).lower()
    for word in ("fellow", "americans", "country"):
        assert word in text
    assert spoken[0].language == "en"
    assert start <= spoken[0].t_start_ns < spoken[-1].t_end_ns <= start + 11_100_000_000
    assert list(reader.transcribe(chunks(samples, size=3777, start_ns=start))) == spoken
