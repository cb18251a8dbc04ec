"""SAM 2 and EdgeTAM with our policies against the stock models of transformers (acceptance 1, 2 and 8)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the models extra: pip install 'streammem[models]'")

import torch
from sam2_tiny import SIDE, clip, config, first_mask, weights

from perception.trackers import sam2_model
from perception.trackers.sam2 import Sam2Settings, Sam2Tracker
from perception.trackers.sam2_prompts import SamPrompt, inputs, pixels
from streammem.banks.policies import POLICIES
from streammem.errors import CorruptData, InputError, ModelUnavailable

KINDS = ("sam2_video", "edgetam_video")
BOTH = ("sam2_video", pytest.param("edgetam_video", marks=pytest.mark.slow))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    made = {}
    for kind in KINDS:
        made[kind] = sam2_model.build(config(kind))
        made[kind].load_state_dict(weights(made[kind]))
    return made


@pytest.fixture(scope="module")
def stock_models(models: dict[str, Any]) -> dict[str, Any]:
    made = {}
    for kind in KINDS:
        family = sam2_model.FAMILIES[kind]
        module = importlib.import_module(f"transformers.models.{family.module}")
        made[kind] = getattr(module, family.model)(config(kind)).eval()
        made[kind].load_state_dict(models[kind].state_dict())
    return made


def stock_run(model: Any, pictures: list[np.ndarray], *, streaming: bool) -> list[torch.Tensor]:
    """Mask logits of the stock model, nothing pruned, prompted with a mask in frame 0."""
    frames = [pixels(picture, SIDE, "cpu", torch.float32) for picture in pictures]
    session = sam2_model.new_session(model)
    if not streaming:
        session.processed_frames = {t: frame[0] for t, frame in enumerate(frames)}
    session.obj_id_to_idx(1)
    session.add_mask_inputs(0, 0, inputs(first_mask(), "a", first_mask().shape, SIDE))
    session.obj_with_new_inputs = [1]
    return [
        model(session, frame=frame if streaming else None, frame_idx=t).pred_masks for t, frame in enumerate(frames)
    ]


class Recorded(Sam2Tracker):
    """Keeps the decoder's logits of every frame."""

    def _run(self, one: Any) -> torch.Tensor:
        logits = super()._run(one)
        self.__dict__.setdefault("seen", []).append(logits.clone())
        return logits


def our_run(model: Any, pictures: list[np.ndarray], policy: str, *, prune: bool = True) -> tuple[Recorded, list[Any]]:
    tracker = Recorded(model, Sam2Settings(policy=policy, prune=prune))
    for t, picture in enumerate(pictures):
        tracker.step(picture, t=t, t_ns=t * 1000, prompts={"a": first_mask()} if t == 0 else None)
    return tracker, tracker.seen  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", BOTH)
def test_1_fifo_is_the_stock_model(kind: str, models: dict[str, Any], stock_models: dict[str, Any]) -> None:
    pictures = clip(40)
    _, ours = our_run(models[kind], pictures, "fifo")
    for streaming in (True, False):
        stock = stock_run(stock_models[kind], pictures, streaming=streaming)
        assert len(stock) == len(ours) == 40
        for t, (a, b) in enumerate(zip(stock, ours, strict=True)):
            assert torch.equal(a, b), f"frame {t}, streaming {streaming}: {float((a - b).abs().max())}"
    # The comparison means something: outputs change with time, and another policy differs.
    assert len({round(float(one.sum()), 3) for one in ours}) > 10
    _, other = our_run(models[kind], pictures, "diverse")
    assert any(not torch.equal(a, b) for a, b in zip(ours, other, strict=True))


def test_1_without_a_memory_it_is_the_stock_model(models: dict[str, Any], stock_models: dict[str, Any]) -> None:
    pictures = clip(12)
    ours = stock_run(models["sam2_video"], pictures, streaming=True)
    stock = stock_run(stock_models["sam2_video"], pictures, streaming=True)
    assert all(torch.equal(a, b) for a, b in zip(ours, stock, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["fifo", "diverse", "samurai"])
def test_2_pruned_is_unpruned(policy: str, models: dict[str, Any]) -> None:
    pictures = clip(40)
    pruned, a = our_run(models["sam2_video"], pictures, policy)
    whole, b = our_run(models["sam2_video"], pictures, policy, prune=False)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    session = pruned._objects["a"].session
    assert set(sam2_model.payload_of(session, 0)) == pruned.memory("a").times()
    assert len(sam2_model.payload_of(whole._objects["a"].session, 0)) == 40
    assert pruned.ram_bytes() < whole.ram_bytes()


@pytest.mark.slow
def test_2_bounded_over_four_hundred_frames(models: dict[str, Any]) -> None:
    pictures = clip(100)
    tracker = Sam2Tracker(models["sam2_video"], Sam2Settings(policy="diverse"))
    sizes = []
    for t in range(400):
        tracker.step(pictures[t % 100], t=t, prompts={"a": first_mask()} if t == 0 else None)
        session = tracker._objects["a"].session
        assert session.processed_frames is None and len(session.frames_tracked_per_obj[0]) == 0
        assert len(sam2_model.payload_of(session, 0)) <= 1 + tracker.memory("a").policy.budget().frames
        sizes.append(tracker.ram_bytes())
    # Flat but for the audit's lines, which are capped at 256.
    assert max(sizes[300:]) <= max(sizes[100:300]) + 1000


@pytest.mark.slow
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_runs(policy: str, models: dict[str, Any]) -> None:
    tracker, seen = our_run(models["sam2_video"], clip(24), policy)
    memory = tracker.memory("a")
    assert len(seen) == 24 and memory.violations == 0
    assert 0 in memory.times() and memory.held()[0][0] == "prompt"
    assert memory.times() == set(sam2_model.payload_of(tracker._objects["a"].session, 0))


def test_8_a_late_object_changes_nothing(models: dict[str, Any]) -> None:
    pictures = clip(30)
    other = np.zeros((96, 160), bool)
    other[50:80, 90:120] = True
    settings = Sam2Settings(policy="diverse", non_overlapping=False)
    alone, both = (Sam2Tracker(models["sam2_video"], settings) for _ in range(2))
    for t, picture in enumerate(pictures):
        start = {"a": first_mask()} if t == 0 else {}
        late = {"b": other} if t == 11 else {}
        alone.step(picture, t=t, prompts=start)
        both.step(picture, t=t, prompts=start | late)
        if t == 20:
            both.prompt("b", np.roll(other, 5, axis=1))
        if t == 25:
            both.remove("b")
        x, y = alone.logits("a"), both.logits("a")
        assert x is not None and y is not None and float(np.abs(x - y).max()) < 1e-5
    assert both.objects == ["a"]
    assert alone.memory("a").state() == both.memory("a").state()


@pytest.mark.parametrize("kind", BOTH)
def test_8_order_of_what_is_read_does_not_matter(kind: str, models: dict[str, Any]) -> None:
    pictures = clip(12)

    def run(turn: bool) -> np.ndarray:
        tracker = Sam2Tracker(models[kind], Sam2Settings(policy="fifo"))
        for t, picture in enumerate(pictures):
            tracker.step(picture, t=t, prompts={"a": first_mask()} if t == 0 else None)
            if turn:
                policy = tracker.memory("a").policy
                select = type(policy).select
                policy.select = lambda at, s=select, p=policy: s(p, at)[::-1]  # type: ignore[method-assign,misc]
        logits = tracker.logits("a")
        assert logits is not None
        return logits

    straight, turned = run(False), run(True)
    scale = float(np.abs(straight).max())
    assert float(np.abs(straight - turned).max()) < 1e-4 * scale


@pytest.mark.parametrize("kind", BOTH)
def test_8_replay_from_state(kind: str, models: dict[str, Any]) -> None:
    pictures = clip(30)
    whole = Sam2Tracker(models[kind], Sam2Settings(policy="resurg"))
    for t, picture in enumerate(pictures):
        whole.step(picture, t=t, prompts={"a": first_mask()} if t == 0 else None)
        if t == 17:
            saved = whole.state()
    again = Sam2Tracker(models[kind], Sam2Settings(policy="resurg"))
    again.load(saved)
    for t in range(18, 30):
        again.step(pictures[t], t=t)
    assert again.state() == whole.state()
    with pytest.raises(CorruptData, match="policy 'resurg'"):
        Sam2Tracker(models[kind], Sam2Settings(policy="fifo")).load(saved)
    with pytest.raises(CorruptData):
        again.load(saved[: len(saved) // 2])


def test_prompts_mend_and_are_kept(models: dict[str, Any]) -> None:
    tracker = Sam2Tracker(models["sam2_video"], Sam2Settings(policy="fifo"))
    pictures = clip(30)
    for t, picture in enumerate(pictures):
        tracker.step(picture, t=t, prompts={"a": first_mask()} if t == 0 else None)
        if t in (5, 9, 12, 15, 20):
            tracker.prompt("a", first_mask())
    held = tracker.memory("a").held()
    assert {t for t, (role, _) in held.items() if role == "prompt"} == {0, 5, 9, 12, 15, 20}
    kinds = tracker._objects["a"].session.output_dict_per_obj[0]
    assert set(kinds["cond_frame_outputs"]) == {0, 5, 9, 12, 15, 20}
    assert 0 in {read.t for read in tracker.memory("a").select(30)}


def test_bad_input_leaves_the_others_alone(models: dict[str, Any]) -> None:
    tracker = Sam2Tracker(models["sam2_video"], Sam2Settings(policy="fifo", max_objects=2))
    pictures = clip(6)
    with pytest.raises(InputError, match="no frame"):
        tracker.prompt("a", first_mask())
    tracker.step(pictures[0], t=0, prompts={"a": first_mask()})
    for prompt, words in (
        (np.zeros((96, 160), bool), "empty"),
        (np.ones((4, 4), bool), "the picture"),
        (SamPrompt(positive=((500.0, 2.0),)), "inside the picture"),
        (SamPrompt(positive=((float("nan"), 2.0),)), "inside the picture"),
        (SamPrompt(negative=((5.0, 2.0),)), "marks nothing"),
        (SamPrompt(box=(5, 5, 5, 9)), "box"),
    ):
        with pytest.raises(InputError, match=words):
            tracker.step(pictures[1], t=1, prompts={"b": prompt})
    assert tracker.objects == ["a"] and tracker.last == 0
    assert tracker.step(pictures[0], t=0).refused == "duplicate frame"
    assert tracker.step(pictures[1], t=-3).refused == "out of order"
    assert tracker.step(pictures[1][:50], t=1).refused == "another frame size"
    assert tracker.dropped == {"duplicate frame": 1, "out of order": 1, "another frame size": 1}
    with pytest.raises(InputError, match="more than 2"):
        tracker.step(pictures[1], t=1, prompts={"b": first_mask(), "c": first_mask()})
    with pytest.raises(InputError, match="isn't tracked"):
        tracker.remove("zebra")
    with pytest.raises(InputError):
        tracker.step(pictures[1].astype(np.float32), t=1)
    assert "a" in tracker.step(pictures[1], t=1).records


def test_hypotheses_reach_the_policy(models: dict[str, Any]) -> None:
    tracker = Sam2Tracker(models["sam2_video"], Sam2Settings(policy="fifo"))
    pictures = clip(8)
    tracker.step(pictures[0], t=0, prompts={"a": first_mask()})
    policy = tracker.memory("a").policy
    asked: list[int] = []

    def choose(hypotheses: Any) -> int:
        asked.append(len(hypotheses))
        return int(np.argmin([one.pred_iou for one in hypotheses]))

    policy.choose = choose  # type: ignore[method-assign]
    record = tracker.step(pictures[1], t=1).records["a"]
    assert asked == [3] and len(record.alt_ious) == 2
    raw = models["sam2_video"].heard
    assert raw.chosen == int(np.argmin(raw.ious))
    assert raw.ious[raw.chosen] <= min(record.alt_ious)
    # The mask that came out is the chosen one, where the object counts as there.
    if record.presence_logit > 0:
        logits = tracker.logits("a")
        assert logits is not None and record.mask is None


def test_load_by_path_and_what_is_missing(models: dict[str, Any], tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("STREAMMEM_HOME", str(tmp_path / "home"))
    with pytest.raises(ModelUnavailable, match=r"isn't on this machine \(needed: config.json, model.safetensors\)"):
        sam2_model.open_model("facebook/never-there-sam2")
    with pytest.raises(ModelUnavailable, match="no folder"):
        sam2_model.open_model(tmp_path / "nowhere")
    for kind in KINDS:
        models[kind].save_pretrained(tmp_path / kind)
        loaded = sam2_model.open_model(tmp_path / kind, device="cpu")
        stock = type(loaded).__mro__[2].from_pretrained(tmp_path / kind).eval()  # type: ignore[attr-defined]
        _, ours = our_run(loaded, clip(5), "fifo")
        assert all(torch.equal(x, y) for x, y in zip(ours, stock_run(stock, clip(5), streaming=True), strict=True))
    (tmp_path / "sam2_video" / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"lacks model\.safetensors"):
        sam2_model.open_model(tmp_path / "sam2_video")


@pytest.mark.gpu
def test_on_an_accelerator(models: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no accelerator here")
    model = sam2_model.build(config())
    model.load_state_dict(models["sam2_video"].state_dict())
    tracker, _ = our_run(model.to("cuda"), clip(20), "diverse")
    restored = Sam2Tracker(model, Sam2Settings(policy="diverse"))
    restored.load(tracker.state())
    assert restored.state() == tracker.state()


@pytest.mark.hub
@pytest.mark.parametrize("name", [sam2_model.SAM2_DEFAULT, "yonigozlan/EdgeTAM-hf"])
def test_real_weights(name: str) -> None:
    try:
        model = sam2_model.open_model(name)
    except ModelUnavailable as error:
        pytest.skip(str(error))
    tracker, _ = our_run(model, clip(3), "diverse")
    assert tracker.memory("a").last == 2
