"""A chat model that runs here: a language model, or one that also sees, from a folder through transformers.

The folder is a local path (what a hub's ``snapshot_download`` leaves); nothing is fetched and no code of the folder is
run. Greedy, so that the same question gives the same text. JSON can't be forced on a local model: the schema is told,
and the text is read as one (``limits.json_schema`` is False).
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streammem.errors import DeadlineExceeded, ModelUnavailable, ProtocolError
from streammem.printable import printable
from streammem.reason.base import Image, Limits, Message, Reply
from streammem.reason.replies import read_object

INSTALL = 'pip install "streammem[models]"'
PICTURES = 8
"""Pictures one call may hold: each is some hundred tokens, and a CPU reads them at a few a second."""
CONTEXT = 8192
PAGE, PAGES = 4096, 256


class LocalModel:
    """``path``: a folder with ``config.json``, weights (safetensors) and a tokenizer. One call at a time; opened at the
    first; ``timeout_s`` is the longest wait for one reply. Raises ModelUnavailable where the folder holds no such
    model or transformers isn't installed."""

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "cpu",
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self._timeout_s = Path(path), timeout_s
        self._device, self._clock = device, clock
        self._lock = threading.Lock()
        self._model: Any = None
        self._reader: Any = None
        self._config = self._read_config()
        self._sees = "vision_config" in self._config
        self._id = ""

    def _read_config(self) -> dict[str, Any]:
        file = self.path / "config.json"
        try:
            found = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelUnavailable(
                f"{str(self.path)!r} holds no model: {printable(str(error))}", hint="give a folder with config.json"
            ) from None
        if not isinstance(found, dict) or "model_type" not in found:
            raise ModelUnavailable(f"{str(file)!r} names no model_type", hint="is it a transformers model?")
        return found

    @property
    def id(self) -> str:
        """Type, folder and a hash of samples of everything in it that changes what is said: a fine-tuned copy has the
        same sizes, and a cache of captions may not take the one for the other."""
        if not self._id:
            self._id = f"{self._config['model_type']}:{self.path.name}:{_sampled(self.path)}"
        return self._id

    @property
    def limits(self) -> Limits:
        text = self._config.get("text_config")
        text = text if isinstance(text, dict) else self._config
        context = text.get("max_position_embeddings", CONTEXT)
        return Limits(context if isinstance(context, int) else CONTEXT, PICTURES if self._sees else 0, False)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 512,
        seed: int = 0,
        timeout_s: float | None = None,
    ) -> Reply:
        """One turn, greedy; ``seed`` changes nothing here. Raises ModelUnavailable, DeadlineExceeded where not one
        token was made in time, ProtocolError for a prompt longer than the model's context."""
        begun = self._clock()
        limits = [limit for limit in (timeout_s, self._timeout_s) if limit is not None]
        deadline = begun + min(limits) if limits else None
        pictures = [piece for message in messages for piece in message.content if isinstance(piece, Image)]
        if len(pictures) > self.limits.images:
            raise ModelUnavailable(
                f"{self.path.name} takes {self.limits.images} pictures, {len(pictures)} were given",
                hint="use a model that sees, or fewer frames",
            )
        if schema is not None:
            told = f"Reply with one JSON object and nothing else. It must fit this schema: {json.dumps(schema)}"
            messages = [*messages, Message("user", (told,))]
        with self._lock:
            self._open()
            text, tokens_in, tokens_out, ended = self._generate(messages, pictures, max_tokens, deadline)
        if not tokens_out and deadline is not None and self._clock() >= deadline:
            raise DeadlineExceeded(f"{self.path.name} made no token in {min(limits):.1f} s", hint="give it more time")
        data = read_object(text, schema) if schema is not None else None
        return Reply(text, data, tokens_in, tokens_out, self._clock() - begun, "stop" if ended else "length")

    # private

    def _open(self) -> None:
        if self._model is not None:
            return
        try:
            import torch
            import transformers
        except ImportError as error:
            raise ModelUnavailable(f"a local model needs transformers: {error}", hint=INSTALL) from None
        transformers.utils.logging.disable_progress_bar()  # stderr is the command's own
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        kind = transformers.AutoModelForImageTextToText if self._sees else transformers.AutoModelForCausalLM
        reader = transformers.AutoProcessor if self._sees else transformers.AutoTokenizer
        try:
            # Image processors of torchvision don't import beside a CPU build of torch: take those on PIL.
            self._reader = reader.from_pretrained(self.path, **({"backend": "pil"} if self._sees else {}), **options)
            model: Any = kind.from_pretrained(self.path, dtype=torch.float32, **options)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
            raise ModelUnavailable(
                f"the model in {str(self.path)!r} can't be opened: {printable(str(error), 300)}",
                hint="is the folder complete, and of a type that this transformers knows?",
            ) from None
        self._model = model.to(self._device).eval()

    def _generate(
        self, messages: Sequence[Message], pictures: Sequence[Image], max_tokens: int, deadline: float | None
    ) -> tuple[str, int, int, bool]:
        import torch

        tokenizer = self._reader.tokenizer if self._sees else self._reader
        prompt = self._prompt(messages, tokenizer)
        if self._sees:
            images = [_pixels(picture) for picture in pictures] or None
            inputs = self._reader(images=images, text=prompt, return_tensors="pt")
        else:
            inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        inputs = {name: value.to(self._device) for name, value in inputs.items()}
        asked = int(inputs["input_ids"].shape[1])
        room = self.limits.context_tokens - asked
        if room < 1:
            raise ProtocolError(
                f"the prompt has {asked} tokens, {self.path.name} reads {self.limits.context_tokens}",
                hint="give it fewer records or frames",
            )
        late = [_Deadline(self._clock, deadline)] if deadline is not None else []
        with torch.inference_mode():
            out = self._model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=min(max_tokens, room),
                stopping_criteria=late,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            )[0, asked:]
        ends = self._model.generation_config.eos_token_id
        ended = bool(len(out)) and int(out[-1]) in (ends if isinstance(ends, list) else [ends])
        return tokenizer.decode(out, skip_special_tokens=True), asked, len(out), ended

    def _prompt(self, messages: Sequence[Message], tokenizer: Any) -> str:
        """By the model's own chat template; a base model without one reads a plain dialogue."""
        owner = self._reader if getattr(self._reader, "chat_template", None) else tokenizer
        if getattr(owner, "chat_template", None):
            plain = [{"role": m.role, "content": self._content(m, owner is not tokenizer)} for m in messages]
            return str(owner.apply_chat_template(plain, tokenize=False, add_generation_prompt=True))
        mark = getattr(self._reader, "image_token", "<image>")
        lines = [
            f"{m.role}: " + "\n".join(piece if isinstance(piece, str) else mark for piece in m.content)
            for m in messages
        ]
        return "\n".join([*lines, "assistant:"])

    def _content(self, message: Message, parts: bool) -> Any:
        if not self._sees and not parts:
            return "\n".join(piece for piece in message.content if isinstance(piece, str))
        return [
            {"type": "text", "text": piece} if isinstance(piece, str) else {"type": "image"}
            for piece in message.content
        ]


def _sampled(folder: Path) -> str:
    """A hash of every weight and configuration file's size and of up to 256 pages of each, at even distances: 1 MB a
    file, where all of a model would be gigabytes."""
    made = hashlib.blake2b(digest_size=8)
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.jinja")]):
        size = file.stat().st_size
        made.update(f"{file.name}:{size}".encode())
        with file.open("rb") as opened:
            for start in range(0, size, max(PAGE, -(-size // PAGES))):
                opened.seek(start)
                made.update(opened.read(PAGE))
    return made.hexdigest()


class _Deadline:
    """Stops generation when the time is over; called after every token."""

    def __init__(self, clock: Callable[[], float], deadline: float) -> None:
        self._clock, self._deadline = clock, deadline

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        over = self._clock() >= self._deadline
        return torch.full((input_ids.shape[0],), over, dtype=torch.bool, device=input_ids.device)


def _pixels(image: Image) -> np.ndarray:
    """(h, w, 3) uint8 RGB. Raises ModelUnavailable for a JPEG that can't be read."""
    if image.pixels is not None:
        return image.pixels
    import cv2

    found = cv2.imdecode(np.frombuffer(image.jpeg or b"", np.uint8), cv2.IMREAD_COLOR) if image.jpeg else None
    if found is None:
        raise ModelUnavailable("a picture for the model can't be read", hint="is it a JPEG?")
    return np.ascontiguousarray(found[:, :, ::-1])
