"""The words that the 1,000 ImageNet classes answer to, and from a question to weights over the classes.

The table (``data/vocabulary.json``) has every class's names and synonyms, and its *kinds*: WordNet hypernyms such as
"dog", "vehicle" or "furniture" with the classes they cover. ``data/vocabulary.npz`` holds their sentence vectors.
Both are made by ``tools/build_vocabulary.py``.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

CLASSES = 1000
KIND_FACTOR = 0.85
"""A hypernym counts less than a name: "animal" is true of 398 classes and says little about any."""
TEMPERATURE = 0.06
"""Of the softmax over similarities (engineering.md, section 2; flat between 0.05 and 0.08 on development)."""
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "mice": "mouse", "geese": "goose",
    "feet": "foot", "teeth": "tooth", "knives": "knife", "leaves": "leaf", "shelves": "shelf", "wolves": "wolf",
    "loaves": "loaf", "scarves": "scarf", "oxen": "ox", "buses": "bus", "taxis": "taxi", "sheep": "sheep",
    "fish": "fish",
}  # fmt: skip
# What people say for what ImageNet and WordNet call otherwise; measured on nothing, plain English.
_EVERYDAY = {
    "tv": "television", "telly": "television", "fridge": "refrigerator", "couch": "sofa", "phone": "telephone",
    "mobile": "cellphone", "smartphone": "cellphone", "bike": "bicycle", "motorbike": "motorcycle", "plane": "airplane",
    "aeroplane": "airplane", "lorry": "truck", "bunny": "rabbit", "puppy": "dog", "doggy": "dog", "kitten": "cat",
    "kitty": "cat", "pc": "computer", "notebook": "notebook computer", "cab": "taxi", "mum": "mother",
    "birdie": "bird", "wardrobe": "wardrobe", "cupboard": "cabinet", "hoover": "vacuum", "stove": "stove",
}  # fmt: skip


_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """``names``: one display name a class. The arrays are private to this module."""

    names: tuple[str, ...]
    name_vectors: np.ndarray
    name_rows: np.ndarray
    name_starts: np.ndarray
    kind_vectors: np.ndarray
    kind_pairs: np.ndarray
    words: dict[str, np.ndarray]
    class_vectors: np.ndarray

    def similarities(self, vector: np.ndarray) -> np.ndarray:
        """A sentence vector (384,) -> its similarity to every class (1000,) float32: the best of the class's names
        and, at 0.85, of its kinds."""
        by_name = (self.name_vectors @ vector)[self.name_rows]
        best = np.maximum.reduceat(by_name, self.name_starts)
        np.maximum.at(best, self.kind_pairs[:, 1], KIND_FACTOR * (self.kind_vectors @ vector)[self.kind_pairs[:, 0]])
        return best

    def weights(self, vector: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
        """A sentence vector (384,) -> weights over the classes, (1000,) float32, sum 1."""
        x = self.similarities(vector) / temperature
        w = np.exp(x - x.max())
        return (w / w.sum()).astype(np.float32)

    def classes_of(self, word: str) -> np.ndarray:
        """The classes (k,) int64 that a singular word or phrase surely means; none for a word that isn't known."""
        return self.words.get(_EVERYDAY.get(word, word), _NONE)


def split(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return re.findall(r"[a-z0-9]+", text.lower().replace("-", " "))


def singular(word: str) -> str:
    """The singular of an English noun, roughly: enough to compare words of a question with names."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    if len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


_lock = threading.Lock()


def load() -> Vocabulary:
    """The shipped vocabulary; read once a process (15 ms)."""
    with _lock:
        return _load()


@cache
def _load() -> Vocabulary:
    data = resources.files("perception.encoders") / "data"
    table = json.loads((data / "vocabulary.json").read_text("utf-8"))
    with (data / "vocabulary.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
        name_vectors = stored["names"].astype(np.float32)
        kind_vectors = stored["kinds"].astype(np.float32)
    entries: list[list[str]] = [entry["names"] for entry in table["classes"]]
    row_of = {name: row for row, name in enumerate(sorted({n for names in entries for n in names}))}
    rows = [[row_of[name] for name in names] for names in entries]
    kinds: dict[str, list[int]] = table["kinds"]
    pairs = [(row, number) for row, word in enumerate(sorted(kinds)) for number in kinds[word]]
    own = np.stack([name_vectors[r[0]] for r in rows])
    return Vocabulary(
        names=tuple(names[0] for names in entries),
        name_vectors=name_vectors,
        name_rows=np.concatenate([np.array(r, dtype=np.int64) for r in rows]),
        name_starts=np.cumsum([0] + [len(r) for r in rows[:-1]]),
        kind_vectors=kind_vectors,
        kind_pairs=np.array(pairs, dtype=np.int64),
        words=_lexicon(table["lexicon"]),
        class_vectors=own,
    )


def _lexicon(lexicon: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Classes by singular word or phrase; words that fall together ("Dog", "dogs") share theirs."""
    joined: dict[str, set[int]] = {}
    for word, numbers in lexicon.items():
        key = " ".join(singular(t) for t in re.findall(r"[a-z0-9]+", word.lower().replace("-", " ")))
        if key:
            joined.setdefault(key, set()).update(numbers)
    return {word: np.array(sorted(numbers), dtype=np.int64) for word, numbers in joined.items()}
