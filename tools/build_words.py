"""Build perception/encoders/data/other_words.txt: English words that name no thing (verbs, adjectives, adverbs).

    apt-get install wordnet-base
    python tools/build_words.py

A question's word that is no word of the vocabulary is either a thing that can't be looked for here ("grapes") or
says something about one ("leaning", "wooden"). WordNet 3.0's counts of tagged text (`cntlist.rev`) tell them apart:
listed is what is tagged more often as something else than a noun, with the irregular forms of listed verbs. Whatever
isn't listed counts as a thing: to doubt too much is the safe side.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path

OUT = Path(__file__).parent.parent / "perception" / "encoders" / "data" / "other_words.txt"
NOUN = "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    arguments = parser.parse_args()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for line in (arguments.wordnet / "cntlist.rev").read_text("ascii").splitlines():
        key, _, count = line.split()
        lemma, _, rest = key.partition("%")
        if lemma.isalpha():
            counts[lemma]["noun" if rest[0] == NOUN else "other"] += int(count)
    words = {lemma for lemma, count in counts.items() if count["other"] > count["noun"]}
    for line in (arguments.wordnet / "verb.exc").read_text("ascii").splitlines():
        form, *lemmas = line.split()
        if form.isalpha() and form not in counts and words.intersection(lemmas):
            words.add(form)
    OUT.write_text("\n".join(sorted(words)) + "\n", "ascii")
    print(f"{len(words)} words, {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
