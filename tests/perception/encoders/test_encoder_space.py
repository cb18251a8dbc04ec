"""The default space: determinism, additive statistics, relevance, and evidence that can say no."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.encoders import evidence, ranking, sparse, vocabulary
from perception.encoders.claim import COCO
from perception.encoders.imagenet import ImageNetSpace
from streammem.spaces import EmbeddingSpace, Ragged

TABLE = vocabulary.load()


def crop(best: dict[str, float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One crop's parts in which the named classes have these probabilities and the rest is noise."""
    logits = np.random.default_rng(seed).normal(0, 1, sparse.CLASSES)
    rest = 1.0 - sum(best.values())
    logp = np.log(rest) + logits - np.log(np.exp(logits).sum())
    for name, p in best.items():
        logp[TABLE.names.index(name)] = np.log(p)
    classes, scores = sparse.pack(logp[None])
    return classes[0], scores[0]


def rows(crops: Sequence[Sequence[dict[str, float]]]) -> dict[str, Ragged]:
    """Columns in which row i has these crops."""
    flat = [crop(c, seed) for seed, c in enumerate(c for row in crops for c in row)]
    offsets = np.cumsum([0] + [len(row) for row in crops])
    return {
        "classes": Ragged(np.array([c for c, _ in flat]).reshape(-1, sparse.TOP).astype(np.uint16), offsets),
        "scores": Ragged(np.array([s for _, s in flat]).reshape(-1, sparse.TOP).astype(np.float16), offsets),
    }


def test_is_an_embedding_space(space: ImageNetSpace) -> None:
    assert isinstance(space, EmbeddingSpace)
    assert (space.id, space.dim, space.can_abstain) == ("imagenet-conse@2", 384, False)
    assert len(space.vocabulary) == 1000


def test_a_frame_never_depends_on_the_others(space: ImageNetSpace, banana: np.ndarray, noise: np.ndarray) -> None:
    alone = space.embed_frames([banana])[0]
    among = space.embed_frames([noise, banana, noise])[1]
    pooled, glance = space.glance(banana)
    reused = space.embed_frame(banana, glance=glance)
    for other in (among, reused):
        assert np.array_equal(alone.vector, other.vector)
        assert all(np.array_equal(alone.parts[name], other.parts[name]) for name in alone.parts)
    assert pooled.shape == (1280,)
    assert {n: (p.shape, p.dtype.name) for n, p in alone.parts.items()} == {
        "classes": ((15, 50), "uint16"),
        "scores": ((15, 50), "float16"),
    }
    assert sum(p.nbytes for p in alone.parts.values()) == 3000
    assert glance.parts["classes"].shape == (1, 50)
    assert abs(float(np.linalg.norm(alone.vector)) - 1) < 1e-5


def test_index_vector_is_comparable_with_text(space: ImageNetSpace, banana: np.ndarray) -> None:
    labels = space.labels_of(space.embed_frame(banana).parts, least=0.0)
    best, other = space.embed_text([labels[0].name, "a parliament in session"])
    vector = space.embed_frame(banana).vector
    assert vector @ best > vector @ other


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 40), seed=st.integers(0, 10))
def test_statistics_of_disjoint_rows_add_up(cut: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    classes, scores = sparse.pack(random.normal(0, 2, (40, 1000)))
    whole = sparse.summarise(classes, scores)
    parts = sparse.summarise(classes[:cut], scores[:cut]) + sparse.summarise(classes[cut:], scores[cut:])
    assert np.allclose(whole, parts, rtol=1e-12)
    assert whole[0, 0] == 40


def test_activations_are_zero_or_more_and_zero_at_the_last() -> None:
    _, scores = sparse.pack(np.random.default_rng(0).normal(0, 3, (5, 1000)))
    a = sparse.activations(scores)
    assert (a >= 0).all()
    assert (a[:, -1] == 0).all()
    assert (np.diff(a, axis=1) <= 0).all()


def test_pack_breaks_ties_by_number() -> None:
    classes, _ = sparse.pack(np.zeros((1, 1000)))
    assert classes[0].tolist() == list(range(50))


def test_the_right_row_is_first(space: ImageNetSpace) -> None:
    columns = rows([[{"banana": 0.7}], [{"Beagle": 0.6}, {}], [{"sports car": 0.8}], [{}]])
    statistics = space.statistics(columns)
    for query, right in (("a banana", 0), ("a dog", 1), ("where is the car?", 2), ("yellow fruit", 0)):
        assert int(space.score(query, columns, statistics).argmax()) == right, query
        assert int(space.score(query, columns, None).argmax()) == right, f"{query}, by the prior alone"


def test_what_a_stream_always_shows_counts_less(space: ImageNetSpace) -> None:
    """A wall of bottles in every picture: a faint dog is news, the hundredth bottle isn't."""
    columns = rows([[{"water bottle": 0.6}]] * 60 + [[{"water bottle": 0.6, "Beagle": 0.2}]])
    statistics = space.statistics(columns)
    bottle = space.score("a bottle", columns, statistics)
    assert bottle.max() < space.score("a bottle", columns, None).max() / 2
    assert int(space.score("a dog", columns, statistics).argmax()) == 60


def test_a_row_without_class_scores_is_judged_by_its_vector(space: ImageNetSpace) -> None:
    columns = rows([[{"banana": 0.7}], [], []])
    dog, boat = space.embed_text(["Beagle", "motorboat"]).astype(np.float16)
    columns["vector"] = Ragged(np.stack([boat, dog, boat]), np.arange(4))
    scores = space.score("a dog", columns, None)
    assert int(scores.argmax()) == 1
    assert np.isfinite(scores).all()
    assert np.isneginf(space.signals("a dog", columns, None)["evidence"][1:]).all()


def test_rows_without_parts_score_nothing(space: ImageNetSpace) -> None:
    columns = rows([[{"banana": 0.7}], [], [{"Beagle": 0.6}], []])
    for scores in space.signals("a banana", columns, None).values():
        assert np.isneginf(scores[[1, 3]]).all()
    assert np.isfinite(space.score("a banana", columns, None)[[0, 2]]).all()
    empty = {"vector": Ragged(np.empty((0, 384)), np.zeros(4, dtype=np.int64))}
    assert np.isneginf(space.score("a banana", empty, None)).all()
    assert space.statistics(empty) is None


@pytest.mark.parametrize(
    ("query", "words", "soft", "blind"),
    [
        ("a dog", ["dog"], [], []),
        ("is there a sofa?", ["sofa"], [], []),
        ("TVs", ["tv"], [], []),
        ("a red car", ["car"], [], []),
        ("a dog behind a wire fence", ["dog", "fence"], ["wire"], []),
        ("two cats lying on the table", ["cat", "table"], ["two", "lying"], []),
        ("the woman holds a cup", ["woman", "cup"], ["woman", "holds"], []),
        ("a dog eats grapes", ["dog"], ["eats"], ["grapes"]),
        ("a road with no cars", ["car"], [], ["road", "no"]),
        ("when is the bottle missing?", ["bottle"], [], ["missing"]),
        ("a robot arm", [], [], ["robot", "arm"]),
        ("nuts and fruit fly at the rabbit", ["fruit", "rabbit"], ["fly"], ["nuts"]),
        ("a fly on the table", ["fly", "table"], [], []),
        ("an orange ring", [], ["ring"], []),
        ("an orange", ["orange"], [], []),
        ("the word COFFEE", ["coffee"], [], ["word"]),
        ("a stop sign", ["stop sign"], [], []),
        ("xyzzy", [], [], ["xyzzy"]),
    ],
)
def test_what_a_question_claims(
    query: str, words: list[str], soft: list[str], blind: list[str], space: ImageNetSpace
) -> None:
    claim = ranking.read_query(query, space._text).claim
    assert [thing.word for thing in claim.things] == words
    assert (sorted(claim.soft), sorted(claim.blind)) == (sorted(soft), sorted(blind))


def test_words_mean_their_commonest_sense() -> None:
    assert len(TABLE.classes_of("dog")) == 118
    assert not len(TABLE.classes_of("arm")), "WordNet also files rifles under arm"
    assert "sports car" in {TABLE.names[c] for c in TABLE.classes_of("car")}
    assert "railroad car" not in {TABLE.names[c] for c in TABLE.classes_of("car")}


def test_evidence_tells_there_from_not_there(space: ImageNetSpace) -> None:
    columns = rows([[{"banana": 0.8}, {"banana": 0.5}, {"banana": 0.4}], [{"lemon": 0.5}, {}, {}]])
    there = space.signals("a banana", columns, None)["evidence"]
    absent = space.signals("a dog", columns, None)["evidence"]
    cannot_know = space.signals("happiness", columns, None)["evidence"]
    assert there[0] > 2 > -2 > there[1]
    assert absent.max() < -2
    assert np.isneginf(cannot_know).all()


@pytest.mark.parametrize("query", ["a dog runs", "does the dog explode?", "a yellow dog", "two dogs"])
def test_what_is_said_of_a_thing_is_not_found_with_it(query: str, space: ImageNetSpace) -> None:
    """However sure the dog is; at the shipped threshold, which a false claim about it must not reach."""
    columns = rows([[{"Beagle": 0.95}, {"Beagle": 0.95}, {"Beagle": 0.95}]])
    stored = space.calibration()
    assert stored is not None
    threshold = next(entry.threshold for entry in stored.signals if entry.signal == "evidence")
    plain, claimed = (space.signals(q, columns, None) for q in ("a dog", query))
    assert plain["evidence"][0] > threshold > claimed["evidence"][0]
    assert claimed["named"][0] > threshold, "the dog itself is told"


@pytest.mark.parametrize("query", ["a dog chases smoke", "a dog eats grapes", "no dog", "a person"])
def test_a_thing_outside_the_vocabulary_leaves_it_open(query: str, space: ImageNetSpace) -> None:
    """However sure the dog is: nothing here knows smoke, grapes or people."""
    columns = rows([[{"Beagle": 0.98}, {"Beagle": 0.98}, {"Beagle": 0.98}]])
    signals = space.signals(query, columns, None)
    assert np.isneginf(signals["evidence"]).all()
    # What can be looked for is told all the same; "no dog" isn't about a dog.
    assert (signals["named"].max() > 2) == (query in ("a dog chases smoke", "a dog eats grapes"))


def boxes(*looks: Sequence[tuple[str, float]] | None) -> Ragged:
    """A detector's column: the kinds and scores of every row, None where nobody looked."""
    values, offsets = [], [0]
    for look in looks:
        if look is not None:
            values.append((-1.0, 0.0, 0.0, 0.0, 1.0, 1.0))
            values += [(COCO.index(kind), score, 0.1, 0.1, 0.5, 0.9) for kind, score in look]
        offsets.append(len(values))
    return Ragged(np.array(values, np.float16).reshape(-1, 6), np.array(offsets))


def test_a_detector_fills_the_gaps_of_the_classes(space: ImageNetSpace) -> None:
    columns = rows([[{}]] * 5)
    assert np.isneginf(space.signals("a person", columns, None)["evidence"]).all()
    columns["things"] = boxes([("person", 0.9)], None, [], None, [("person", 0.9)])
    there = space.signals("a person", columns, None)["evidence"]
    assert there[0] > 1 and there[1] > 1, "the row after a look has its boxes"
    assert there[2] < -3 and there[3] < -3, "a look that finds nobody ends it"
    assert there[0] - there[4] > 2, "a box that neither neighbour confirms counts half"
    assert (space.signals("a woman", columns, None)["evidence"] < there).all(), "who it is isn't seen"
    dogs = space.signals("a dog", columns, None)["evidence"]
    columns["things"] = boxes([("dog", 0.9)], None, None, None, None)
    assert np.array_equal(dogs, space.signals("a dog", columns, None)["evidence"]), "classes know dogs better"


def test_a_claimed_colour_is_checked(space: ImageNetSpace) -> None:
    from perception.encoders.colours import TERMS

    columns = rows([[{"sports car": 0.8}, {"sports car": 0.5}, {"sports car": 0.4}]] * 2)
    shares = np.zeros((6, len(TERMS)), np.float16)
    shares[:3, TERMS.index("red")] = 0.3
    columns["colours"] = Ragged(shares, np.array([0, 3, 6]))
    red, blue = space.signals("a red car", columns, None)["evidence"]
    assert red - blue == pytest.approx(evidence.COLOUR_PENALTY, abs=0.3)
    swan = rows([[{"black swan": 0.9}, {"black swan": 0.9}, {"black swan": 0.9}]])
    assert space.signals("a black swan", swan, None)["evidence"][0] > 0
    assert space.signals("a white swan", swan, None)["evidence"][0] < -3


def test_labels_are_sorted_and_named(space: ImageNetSpace) -> None:
    columns = rows([[{"banana": 0.6, "lemon": 0.2}, {"lemon": 0.3}]])
    labels = space.labels_of({name: column.values for name, column in columns.items()})
    assert [(label.name, round(label.score, 1)) for label in labels] == [("banana", 0.6), ("lemon", 0.3)]


def test_it_says_why_a_row_resembles_a_question(space: ImageNetSpace) -> None:
    classes = np.array([[444, 999, *range(48)]], np.uint16)  # 444: tandem bicycle
    scores = np.log(np.array([[0.7, 0.1, *[0.2 / 48] * 48]])).astype(np.float16)
    one, offsets = {"classes": classes, "scores": scores}, np.array([0, 1])
    columns = {name: Ragged(values, offsets) for name, values in one.items()}
    assert space.explain("a tandem bicycle", columns) == ["tandem bicycle 0.70"]
    assert space.explain("anything", {"vector": Ragged(np.zeros((0, 384)), np.array([0, 0]))}) == [""]


def test_calibration_is_of_this_space(space: ImageNetSpace) -> None:
    stored = space.calibration()
    assert stored is not None
    assert f"{stored.space}@{stored.version}" == space.id
    by_name = {entry.signal: entry for entry in stored.signals}
    assert set(by_name) == {"evidence", "named", "text", "speech", "vision"}
    # Similarity alone can't tell absence: it never decides, it only says what resembles.
    assert by_name["vision"].threshold is None
    assert by_name["vision"].supports is not None
    entry = by_name["evidence"]
    assert entry.negatives >= 300
    assert entry.risk <= 0.05
    assert list(entry.scores) == sorted(entry.scores)
    assert list(entry.precision) == sorted(entry.precision)
