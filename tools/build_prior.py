"""Build perception/encoders/data/prior.npz: what is usual in a picture, class by class.

    python tools/build_prior.py VIDEO_OR_FOLDER...

Each source counts the same, however long it is. The shipped file was measured on the 26 development clips of the
shared data folder (film, streets, robot tables, rooms, animals; 1 frame/s, 15 crops); it holds sums over them, no
picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from perception.encoders import sparse
from perception.encoders.imagenet import ImageNetSpace
from perception.sampling import FixedRate
from perception.sources import open_source

DATA = Path(__file__).parent.parent / "perception" / "encoders" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    arguments = parser.parse_args()
    space = ImageNetSpace()
    total = np.zeros((sparse.ROWS, sparse.CLASSES))
    for text in arguments.sources:
        own = np.zeros_like(total)
        source = open_source(text)
        for frame in source.frames(sampling=FixedRate(1.0)):
            parts = space.embed_frame(frame.image).parts
            own += sparse.summarise(parts["classes"], parts["scores"])
        source.close()
        if own[0, 0]:
            total += own / own[0, 0]
        print(f"{text}: {int(own[0, 0])} crops")
    np.savez(DATA / "prior.npz", statistics=total / max(total[0, 0], 1.0))


if __name__ == "__main__":
    main()
