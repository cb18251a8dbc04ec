"""What a person names to be tracked: a point, a box, a mask or a thing in words, at a moment. Text -> mask of one
picture."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from streammem.errors import InputError

FORMS = 'a point "x,y", a box "x0,y0,x1,y1" (pixels, or fractions below 1), a mask.png, or a thing in words ("a dog")'
_WORDS = re.compile(r"[^\W\d_][\w '-]{1,80}")
_ARTICLE = re.compile(r"^(an?|the) ")
REACH = 0.16
"""How far from a point its object may reach, as a share of the diagonal."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """``name`` of the object, and where it is in the frame at or after ``at_s`` (seconds of the source). ``words`` mean
    the first frame from then on that shows it (``wording.py``)."""

    name: str
    kind: Literal["point", "box", "mask", "words"]
    numbers: tuple[float, ...] = ()
    path: str = ""
    at_s: float = 0.0
    words: str = ""

    @property
    def identity(self) -> str:
        """Text that changes with everything that changes the mask."""
        content = ""
        if self.kind == "mask":
            with open(self.path, "rb") as file:
                content = hashlib.sha256(file.read()).hexdigest()
        facts = (self.name, self.kind, self.numbers, content, self.at_s)
        return repr((*facts, self.words) if self.words else facts)


def parse_prompts(texts: list[str]) -> list[Prompt]:
    """``[NAME=]WHERE[@SECONDS]`` each; objects without a name are numbered. Raises InputError."""
    prompts = [_parse(text, str(number)) for number, text in enumerate(texts, 1)]
    names = [prompt.name for prompt in prompts]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two objects are called {name!r}", hint="--track mug=120,80 names one")
    return prompts


def _parse(text: str, number: str) -> Prompt:
    name, found, where = text.partition("=")
    named = bool(found)
    name, where = (name.strip(), where.strip()) if named else (number, text.strip())
    where, found, seconds = where.rpartition("@") if "@" in where else (where, "", "0")
    try:
        at_s = float(seconds)
    except ValueError:
        raise InputError(f"--track {text!r}: {seconds!r} isn't a number of seconds", hint="mug=120,80@3.5") from None
    if not name or not name.isprintable() or at_s < 0 or at_s != at_s:
        raise InputError(f"--track {text!r}: the name or the time can't be used", hint="mug=120,80@3.5")
    if where.lower().endswith(".png"):
        if not os.path.isfile(where):
            raise InputError(f"--track {text!r}: there is no file {where}", hint=f"give {FORMS}")
        return Prompt(name, "mask", path=where, at_s=at_s)
    if _WORDS.fullmatch(where):
        return Prompt(name if named else _ARTICLE.sub("", where.lower()), "words", at_s=at_s, words=where)
    try:
        numbers = tuple(float(part) for part in where.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (2, 4) or not all(np.isfinite(numbers)):
        raise InputError(f"--track {text!r} isn't understood", hint=f"give {FORMS}")
    return Prompt(name, "point" if len(numbers) == 2 else "box", numbers, at_s=at_s)


def prompt_mask(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    """The object's mask (h, w) bool in ``image`` (h, w, 3) uint8 RGB.

    A box and a point are cut out along the colours around them (GrabCut): a start that can be seen and mended, not a
    model's segmentation. Raises InputError where the prompt lies outside of the picture or marks nothing."""
    height, width = image.shape[:2]
    if prompt.kind == "mask":
        return read_mask(prompt, height, width)
    xs, ys = in_pixels(prompt, height, width)
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    if prompt.kind == "box":
        x0, y0, x1, y1 = round(xs[0]), round(ys[0]), round(xs[1]), round(ys[1])
        labels[y0:y1, x0:x1] = cv2.GC_PR_FGD
        fallback = labels == cv2.GC_PR_FGD
    else:
        x, y = int(xs[0]), int(ys[0])
        reach = REACH * float(np.hypot(height, width))
        cv2.circle(labels, (x, y), round(reach), cv2.GC_PR_BGD, -1)
        cv2.circle(labels, (x, y), round(reach / 2), cv2.GC_PR_FGD, -1)
        cv2.circle(labels, (x, y), max(2, round(reach / 10)), cv2.GC_FGD, -1)
        fallback = labels == cv2.GC_FGD
    mask = cut_out(image, labels)
    if prompt.kind == "point":
        _, pieces = cv2.connectedComponents(mask.astype(np.uint8))
        mask = pieces == pieces[y, x] if mask[y, x] else fallback
    # Where everything in the box has one colour there is nothing to cut along: the box itself is the object then.
    return mask if mask.sum() >= 0.1 * fallback.sum() else fallback


def in_pixels(prompt: Prompt, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of a point or a box in a picture of this size. Raises InputError outside of it."""
    numbers = np.array(prompt.numbers)
    if (numbers <= 1).all() and any(number != int(number) for number in prompt.numbers):
        numbers = numbers * ([width, height] * (len(numbers) // 2))
    xs, ys = numbers[0::2], numbers[1::2]
    inside = (0 <= xs.min() < width and 0 <= ys.min() < height) and (xs.max() <= width and ys.max() <= height)
    if not inside or (prompt.kind == "box" and (xs[1] - xs[0] < 2 or ys[1] - ys[0] < 2)):
        where = ", ".join(f"{number:g}" for number in prompt.numbers)
        raise InputError(
            f"the prompt {prompt.name!r} at {where} isn't inside the picture ({width} x {height})", hint=f"give {FORMS}"
        )
    return xs, ys


def cut_out(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """GrabCut (Rother et al. 2004) from ``labels`` (h, w) uint8, its own four -> (h, w) bool; repeatable."""
    if not (labels == cv2.GC_BGD).any() and not (labels == cv2.GC_PR_BGD).any():
        return labels != cv2.GC_BGD  # the box is the whole picture: there is no background to tell it from
    cv2.setRNGSeed(0)
    done = labels.copy()
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, done, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    return (done == cv2.GC_FGD) | (done == cv2.GC_PR_FGD)


def read_mask(prompt: Prompt, height: int, width: int) -> np.ndarray:
    """The mask (h, w) bool of a prompt of the kind "mask". Raises InputError."""
    read = cv2.imread(prompt.path, cv2.IMREAD_GRAYSCALE)
    if read is None:
        raise InputError(f"{prompt.path}: not a picture", hint=f"give {FORMS}")
    if read.shape != (height, width):
        raise InputError(
            f"{prompt.path}: is {read.shape[1]} x {read.shape[0]}, the picture {width} x {height}",
            hint="make the mask as large as the video",
        )
    mask = read > (127 if read.max() > 127 else 0)
    if not mask.any():
        raise InputError(f"{prompt.path}: the mask is empty", hint="mark the object with white")
    return mask
