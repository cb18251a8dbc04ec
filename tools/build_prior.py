"""Build perception/encoders/data/prior.npz: what is usual in a picture, class by class.

    python tools/build_prior.py --cache DIR

Measured on the clips of the development questions (film, streets, robot tables, rooms, animals; 1 frame/s, 15 crops).
Each clip counts the same, however long it is. The file holds sums over all of them and no picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
for folder in (REPOSITORY, REPOSITORY / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from eval_retrieval import watch_clip  # noqa: E402

from perception.encoders import sparse  # noqa: E402
from perception.encoders.suite import EncoderSuite  # noqa: E402
from queries import load_queries  # noqa: E402
from streammem.config import PerceptionConfig  # noqa: E402

OUT = REPOSITORY / "perception" / "encoders" / "data" / "prior.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where eval_retrieval.py keeps encoded clips")
    arguments = parser.parse_args()
    suite = EncoderSuite(PerceptionConfig(speech="off"))
    clips = {part.clip.name: part.clip for source in load_queries().sources.values() for part in source.parts}
    total = np.zeros((sparse.ROWS, sparse.CLASSES))
    for name in sorted(clips):
        columns = watch_clip(clips[name], suite, arguments.cache).columns
        own = sparse.summarise(columns["classes"].values, columns["scores"].values)
        total += own / own[0, 0]
    np.savez(OUT, statistics=total / len(clips))
    print(f"{len(clips)} clips, mean activation {total[1].mean() / len(clips):.4f}")


if __name__ == "__main__":
    main()
