"""Generated scenes whose truth is known: for tests, demos and measuring, with no file and no download."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

import numpy as np

from perception.frames import AUDIO_RATE, AudioChunk, Frame, Health, SourceInfo
from perception.identity import stream_id, text_hash
from perception.sampling import NS, FixedRate
from streammem.errors import SourceError

SCENARIOS = ("shapes", "cards", "mixed")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 170, 60),
    "blue": (40, 70, 220),
    "yellow": (240, 220, 40),
    "orange": (245, 140, 20),
    "purple": (130, 50, 170),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
SHAPES = ("circle", "square", "triangle")
WORDS = ("KITCHEN", "EXIT", "PLATFORM 9", "COFFEE", "ROBOT LAB", "NO ENTRY", "LIBRARY", "GATE 42")
_GROUND = (96, 104, 112)
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Truth:
    """What is to be seen in one stretch of time: ``words`` describe it, ``text`` is written in it."""

    t_start_ns: int
    t_end_ns: int
    words: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class _Scene:
    truth: Truth
    colour: tuple[int, int, int]
    shape: str
    path: tuple[float, float, float, float]


class SyntheticSource:
    """``synthetic:SCENARIO?seconds=24&seed=0&rate=10&size=320x240&scene=4&sound=0``.

    ``shapes``: a coloured shape moves over gray; ``cards``: cards with printed words; ``mixed``: both by turns. A scene
    lasts ``scene`` seconds; ``sound=1`` plays a tone in the first half second of each. The same text gives the same
    bytes everywhere."""

    def __init__(self, text: str, *, fps: float = 1.0) -> None:
        """Raises SourceError that names the wrong option."""
        name, _, query = text.partition("?")
        self.scenario = name or "shapes"
        if self.scenario not in SCENARIOS:
            raise SourceError(f"no generated scene is called {name!r}", hint=f"use one of {', '.join(SCENARIOS)}")
        given = dict(parse_qsl(query, keep_blank_values=True))
        self.seconds = _number(given, "seconds", 24.0, 0.1, 1e6)
        self.seed = int(_number(given, "seed", 0, 0, 2**31))
        self.rate = _number(given, "rate", 10.0, 0.1, 240)
        self.scene_s = _number(given, "scene", 4.0, 0.1, 1e5)
        self.sound = bool(_number(given, "sound", 0, 0, 1))
        self.width, self.height = _size(given.pop("size", "320x240"))
        if given:
            raise SourceError(
                f"a generated scene has no option {next(iter(given))!r}",
                hint="known are seconds, seed, rate, size, scene and sound",
            )
        self.sampling = FixedRate(fps)
        self.health = Health()
        self._scenes = self._make()
        content = text_hash(f"{_VERSION}\0{text}")
        self._info = SourceInfo(
            text=f"synthetic:{text}",
            kind="synthetic",
            stream=stream_id(self.scenario, content),
            content_hash=content,
            clock="media",
            width=self.width,
            height=self.height,
            fps=self.rate,
            duration_ns=round(self.seconds * NS),
            codec="generated",
            has_audio=self.sound,
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def truth(self) -> list[Truth]:
        """What is shown when, in order of time."""
        return [scene.truth for scene in self._scenes]

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        chosen, last = sampling or self.sampling, -1
        count = max(1, int(self.seconds * self.rate))
        for number in range(count):
            at = round(number * NS / self.rate)
            index = chosen.index(at)
            if index > last:
                last = index
                if at >= start_ns:
                    self.health.decoded_frames += 1
                    yield Frame(self.picture(at), at, at, index)

    def audio(self, start_ns: int = 0) -> Iterator[AudioChunk] | None:
        return self._tones(start_ns) if self.sound else None

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        found = []
        for frame in self.frames(t_start_ns, FixedRate(fps)):
            if frame.media_ns > t_end_ns:
                break
            found.append(frame)
        at = max(0, min(t_start_ns, round(self.seconds * NS) - 1))
        return found or [Frame(self.picture(at), at, at, self.sampling.index(at))]

    def close(self) -> None:
        """Nothing is held open."""

    def picture(self, at_ns: int) -> np.ndarray:
        """(h, w, 3) uint8 RGB at this time."""
        import cv2

        scene = self._scenes[min(int(at_ns / NS / self.scene_s), len(self._scenes) - 1)]
        image = np.full((self.height, self.width, 3), _GROUND, np.uint8)
        length = scene.truth.t_end_ns - scene.truth.t_start_ns
        part = (at_ns - scene.truth.t_start_ns) / length if length else 0.0
        x0, y0, x1, y1 = scene.path
        x, y = (x0 + (x1 - x0) * part) * self.width, (y0 + (y1 - y0) * part) * self.height
        radius = min(self.width, self.height) / 5
        if scene.truth.text:
            scale = self.width / 320
            image[:] = scene.colour
            ink = (255, 255, 255) if sum(scene.colour) < 380 else (0, 0, 0)
            (wide, high), _ = cv2.getTextSize(scene.truth.text, cv2.FONT_HERSHEY_SIMPLEX, 1.2 * scale, 3)
            origin = ((self.width - wide) // 2, (self.height + high) // 2)
            cv2.putText(image, scene.truth.text, origin, cv2.FONT_HERSHEY_SIMPLEX, 1.2 * scale, ink, 3, cv2.LINE_AA)
        elif scene.shape == "circle":
            cv2.circle(image, (round(x), round(y)), round(radius), scene.colour, -1)
        elif scene.shape == "square":
            corners = (round(x - radius), round(y - radius)), (round(x + radius), round(y + radius))
            cv2.rectangle(image, corners[0], corners[1], scene.colour, -1)
        else:
            points = [[x, y - radius], [x - radius, y + radius], [x + radius, y + radius]]
            cv2.fillPoly(image, [np.round(points).astype(np.int32)], scene.colour)
        return image

    def _make(self) -> list[_Scene]:
        # Random(int) is the same on every machine and Python version; random.random() alone is promised to be.
        draw = random.Random(self.seed).random
        scenes, names = [], list(COLOURS)
        for number in range(max(1, int(np.ceil(self.seconds / self.scene_s - 1e-9)))):
            start = number * self.scene_s
            end = min(start + self.scene_s, self.seconds)
            colour = names[int(draw() * len(names))]
            shape = SHAPES[int(draw() * len(SHAPES))]
            word = WORDS[int(draw() * len(WORDS))]
            path = (0.25 + 0.5 * draw(), 0.3 + 0.4 * draw(), 0.25 + 0.5 * draw(), 0.3 + 0.4 * draw())
            card = self.scenario == "cards" or (self.scenario == "mixed" and number % 2 == 1)
            words = (colour, "card") if card else (colour, shape)
            truth = Truth(round(start * NS), round(end * NS), words, word if card else "")
            scenes.append(_Scene(truth, COLOURS[colour], shape, path))
        return scenes

    def _tones(self, start_ns: int) -> Iterator[AudioChunk]:
        for second in range(int(np.ceil(self.seconds))):
            count = int(min(1.0, self.seconds - second) * AUDIO_RATE)
            at = second + np.arange(count) / AUDIO_RATE
            tone = 0.5 * np.sin(2 * np.pi * 440 * at) * ((at % self.scene_s) < 0.5)
            chunk = AudioChunk(tone.astype(np.float32), second * NS)
            if count and chunk.t_end_ns > start_ns:
                yield chunk


def _number(given: dict[str, str], name: str, default: float, low: float, high: float) -> float:
    text = given.pop(name, None)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise SourceError(f"{name}={text!r} can't be used in a generated scene", hint=f"use {low:g} to {high:g}")
    return value


def _size(text: str) -> tuple[int, int]:
    wide, _, high = text.partition("x")
    if not (wide.isdigit() and high.isdigit() and 16 <= int(wide) <= 4096 and 16 <= int(high) <= 4096):
        raise SourceError(f"size={text!r} can't be used in a generated scene", hint="use 16x16 to 4096x4096")
    return int(wide), int(high)
