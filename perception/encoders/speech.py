"""Speech: whisper-base through faster-whisper, in the ``speech`` extra. CPU, int8, one thread, no torch.

The weights come in two packages and are joined once into the cache, checked by hash. Sound is taken in windows of 30
s, what Whisper was trained on (less than 10 s costs as much and hears worse); a sentence that the window's end cuts
is heard again with the next one. faster-whisper's own Silero voice detection keeps silence and music away from the
model, which otherwise invents words for them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perception.encoders import weights
from perception.encoders.ocr import clean_text
from perception.frames import AUDIO_RATE, AudioChunk
from streammem.errors import ModelUnavailable
from streammem.model import Speech

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

WINDOW_SECONDS = 30.0
LEAST_SECONDS = 10.0
"""A shorter rest is padded with silence."""
_TAIL_SECONDS = 1.0
"""A segment that ends this close to the window's end may be cut: it is left for the next window."""
_GAP_NS = 200_000_000
"""A hole in the sound longer than this starts a new window."""
_QUIET = 1e-4
_LEAST_LOG_PROBABILITY = -1.0
_MOST_NO_SPEECH = 0.6
_RECIPE = "whisper-1"
_FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")
_CHUNK = 1 << 20


class SpeechReader:
    """Turns sound into words with times. One instance is used by one thread at a time."""

    def __init__(self, *, cache: Path | None = None) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._model: WhisperModel | None = None

    def check(self) -> None:
        """Raise ModelUnavailable where the extra or its weights aren't installed. Opens nothing."""
        if importlib.util.find_spec("faster_whisper") is None:
            raise ModelUnavailable(
                "speech needs faster-whisper, which isn't installed", hint="run: pip install 'streammem[speech]'"
            )
        weights.find(weights.WHISPER_BASE)
        weights.find(weights.WHISPER_BASE_REST)

    def transcribe(self, audio: Iterable[AudioChunk]) -> Iterator[Speech]:
        """Chunks of 16 kHz mono -> what is said, in order of time, on the chunks' clock. The result doesn't depend on
        how the sound is cut into chunks. Raises ModelUnavailable."""
        held = np.zeros(0, dtype=np.float32)
        start_ns = 0
        window = int(WINDOW_SECONDS * AUDIO_RATE)
        for chunk in audio:
            end_ns = start_ns + _ns(len(held))
            if len(held) and abs(chunk.t_start_ns - end_ns) > _GAP_NS:
                yield from self._flush(held, start_ns)
                held = np.zeros(0, dtype=np.float32)
            if not len(held):
                start_ns = chunk.t_start_ns
            held = np.concatenate([held, chunk.samples.astype(np.float32, copy=False)])
            while len(held) >= window:
                spoken, used = self._hear(held[:window], start_ns, last=False)
                yield from spoken
                held, start_ns = held[used:], start_ns + _ns(used)
        yield from self._flush(held, start_ns)

    def _flush(self, samples: np.ndarray, start_ns: int) -> list[Speech]:
        return self._hear(samples, start_ns, last=True)[0] if len(samples) else []

    def _hear(self, samples: np.ndarray, start_ns: int, *, last: bool) -> tuple[list[Speech], int]:
        """What is said in one window, and how many samples of it are done with."""
        if float(np.abs(samples).max()) < _QUIET:
            return [], len(samples)
        least = int(LEAST_SECONDS * AUDIO_RATE)
        padded = np.pad(samples, (0, least - len(samples))) if len(samples) < least else samples
        with self._lock:
            segments, info = self._open().transcribe(
                padded, beam_size=1, temperature=0.0, vad_filter=True, condition_on_previous_text=False
            )
            heard = list(segments)
        seconds = len(samples) / AUDIO_RATE
        out: list[Speech] = []
        for number, segment in enumerate(heard):
            begin, end = max(segment.start, 0.0), min(segment.end, seconds)
            # The first segment is never left over: a window that is one long sentence must come to an end.
            if not last and number > 0 and end > seconds - _TAIL_SECONDS:
                return out, int(begin * AUDIO_RATE)
            text = clean_text(segment.text)
            nothing = segment.no_speech_prob > _MOST_NO_SPEECH and segment.avg_logprob < _LEAST_LOG_PROBABILITY
            if text and end > begin and not nothing:
                first_ns, last_ns = start_ns + int(begin * 1e9), start_ns + int(end * 1e9)
                score = round(math.exp(min(segment.avg_logprob, 0.0)), 4)
                out.append(Speech(text, first_ns, last_ns, score, str(info.language or "")))
        return out, len(samples)

    def _open(self) -> WhisperModel:
        if self._model is None:
            self.check()
            folder = weights.prepared(weights.WHISPER_BASE, _RECIPE, _FILES, _join, cache=self._cache)
            from faster_whisper import WhisperModel

            try:
                self._model = WhisperModel(
                    str(folder), device="cpu", compute_type="int8", cpu_threads=1, num_workers=1, local_files_only=True
                )
            except (RuntimeError, ValueError, OSError) as error:
                raise ModelUnavailable(
                    f"whisper-base can't be opened: {folder}: {error}", hint=f"delete {folder}"
                ) from error
        return self._model


def _join(folder: Path) -> None:
    first, second = weights.find(weights.WHISPER_BASE), weights.find(weights.WHISPER_BASE_REST)
    digest = hashlib.sha256()
    with (folder / "model.bin").open("wb") as out:
        for path in (first, second):
            with path.open("rb") as part:
                while chunk := part.read(_CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
    weights.expect(weights.WHISPER_BASE, digest.hexdigest(), f"{first} + {second.name}")
    for name in _FILES[1:]:
        shutil.copyfile(first.parent / name, folder / name)


def _ns(samples: int) -> int:
    return samples * 1_000_000_000 // AUDIO_RATE
