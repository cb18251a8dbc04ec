"""Text seen in the scene: RapidOCR (PP-OCR small) on kept keyframes.

RapidOCR downloads a model whose file is missing or differs. That can't happen here: both files are checked by hash
first and handed over as paths, a branch of its code that never opens a connection (a test blocks the network).
Settings, as measured in engineering.md: longest side 480 and no angle classifier cost 35-55 ms where its defaults
cost 206-262.

What it reads is data: control characters are removed, length and number are capped, and nobody interprets it.
"""

from __future__ import annotations

import logging
import threading
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perception.encoders import weights
from streammem.model import TextSpan

if TYPE_CHECKING:
    from rapidocr import RapidOCR

LONGEST_SIDE = 480
LEAST_CONFIDENCE = 0.8
LEAST_CHARACTERS = 3
MOST_CHARACTERS = 200
MOST_SPANS = 32
_MULTIPLE = 32  # the detector halves its input five times


class SceneText:
    """The reader; one instance is used by one thread at a time (a lock holds the others)."""

    def __init__(self, *, cache: Path | None = None) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._engine: RapidOCR | None = None

    def check(self) -> None:
        """Raise ModelUnavailable where a model file is missing or differs. Opens nothing."""
        weights.verified_path(weights.OCR_DETECT, self._cache)
        weights.verified_path(weights.OCR_READ, self._cache)

    def read(self, image: np.ndarray) -> tuple[TextSpan, ...]:
        """``image`` (h, w, 3) uint8 RGB -> what is written in it, top to bottom; boxes in fractions of the picture.

        Raises ModelUnavailable."""
        import cv2

        height, width = image.shape[:2]
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        size = (_rounded(width * scale), _rounded(height * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        with self._lock:
            result = self._open()(np.ascontiguousarray(small[:, :, ::-1]))  # it expects BGR
        boxes = getattr(result, "boxes", None)
        texts = getattr(result, "txts", None)
        scores = getattr(result, "scores", None)
        if boxes is None or texts is None or scores is None:
            return ()
        spans = []
        for corners, text, score in zip(boxes, texts, scores, strict=True):
            cleaned = clean_text(text)
            if float(score) < LEAST_CONFIDENCE or sum(c.isalnum() for c in cleaned) < LEAST_CHARACTERS:
                continue
            xy = np.clip(np.asarray(corners, dtype=np.float64).reshape(-1, 2) / size, 0.0, 1.0)
            (x0, y0), (x1, y1) = xy.min(axis=0), xy.max(axis=0)
            box = (round(float(x0), 4), round(float(y0), 4), round(float(x1), 4), round(float(y1), 4))
            spans.append(TextSpan(cleaned, round(min(float(score), 1.0), 4), box))
        spans.sort(key=lambda s: (s.box[1], s.box[0], s.text) if s.box else (0.0, 0.0, s.text))
        return tuple(spans[:MOST_SPANS])

    def _open(self) -> RapidOCR:
        if self._engine is None:
            detect = weights.verified_path(weights.OCR_DETECT, self._cache)
            read = weights.verified_path(weights.OCR_READ, self._cache)
            from rapidocr import RapidOCR

            self._engine = RapidOCR(
                params={
                    "Global.use_cls": False,
                    "Global.log_level": "critical",
                    "Global.text_score": LEAST_CONFIDENCE,
                    # The picture has its size already: 1 pixel and 2 sides of 480 keep its own resizing out.
                    "Global.min_side_len": 1,
                    "Global.max_side_len": 2 * LONGEST_SIDE,
                    "Det.model_path": str(detect),
                    "Det.limit_type": "max",
                    "Det.limit_side_len": LONGEST_SIDE,
                    "Rec.model_path": str(read),
                    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                }
            )
            logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
        return self._engine


def clean_text(text: str) -> str:
    """Printable text on one line, at most 200 characters: control, format and private characters are removed."""
    kept = "".join(" " if c.isspace() else c for c in unicodedata.normalize("NFKC", str(text)))
    kept = "".join(c for c in kept if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return " ".join(kept.split())[:MOST_CHARACTERS]


def _rounded(side: float) -> int:
    return max(_MULTIPLE, round(side / _MULTIPLE) * _MULTIPLE)
