"""The banks of an open memory: which there are, made when they are needed, fed with the journal's tail.

A writer needs all of them at once: they decide with every moment. A reader needs one when it is asked for: ``ask``
reads moments alone, and the banks' modules are 45 ms of a fresh process's imports, their share of a long tail more.
Made late, a bank loads its saved state and takes in the same records in the same order: the same bank.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from pydantic import ValidationError

from streammem.config import Config
from streammem.errors import CorruptData, StreammemError
from streammem.model import Record
from streammem.storage.open_part import content_bytes, record_digest
from streammem.storage.segment_writer import Row
from streammem.storage.store import Store

log = logging.getLogger("streammem.storage")
Makers = Mapping[str, Callable[[], Any]]
"""By name, what makes each bank that is switched on."""


class BankSet(Mapping[str, Any]):
    """Banks by name. ``late``: made when one is looked up, else all of them by the constructor."""

    def __init__(
        self,
        makers: Makers,
        store: Store,
        *,
        late: bool,
        recall: Callable[[int], Record | None],
        note: Callable[[str], None],
    ) -> None:
        self._makers = dict(makers)
        self._store = store
        self._recall = recall
        self._note = note
        self._late = late
        self._made: dict[str, Any] = {}
        self._tail: list[tuple[int, Record]] = []
        if not late:
            self.make_all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            bank = self._made[name] = self._makers[name]()
            for stream, state in self._store.bank_states.get(name, {}).items():
                try:
                    bank.load(stream, state, self._recall)
                except CorruptData as error:
                    self._note(error.message)
            for lsn, record in self._tail:
                self._feed(bank, lsn, record)
        return self._made[name]

    def knows(self, name: str) -> bool:
        """Whether a bank may hold anything: it is made, it saved a state, or the tail has what such banks live on.
        Nothing is made for it."""
        if name in self._made or any(self._store.bank_states.get(name, {}).values()):
            return True
        fed = _FED.get(name)
        return name in self._makers and (any(map(fed, (record for _, record in self._tail))) if fed else True)

    def make_all(self) -> None:
        """Make those that aren't yet. One that a reader can't make here (its weights are elsewhere) is left out."""
        for name in list(self._makers):
            try:
                self[name]
            except (StreammemError, ImportError) as error:
                if not self._late:
                    raise
                del self._makers[name]
                self._note(f"the bank {name} can't be opened here: {error}")

    def observe(self, lsn: int, record: Record) -> None:
        """Show a moment to every bank; those that aren't made yet see it when they are."""
        if self._late:
            self._tail.append((lsn, record))
        for bank in self._made.values():
            self._feed(bank, lsn, record)

    def _feed(self, bank: Any, lsn: int, record: Record) -> None:
        for kept in self._observed(bank, record):
            part = self._store.part(bank.name, record.stream)
            part.add(Row(kept, record_digest(kept)), lsn, content_bytes(kept))

    def _observed(self, bank: Any, record: Record) -> Sequence[Record]:
        """What a bank makes of a moment; nothing where it fails: the moment itself is durable and must be applied."""
        try:
            return bank.observe(record)
        except StreammemError:
            raise
        except Exception as error:
            log.exception("the bank %s failed", bank.name)
            self._note(f"the bank {bank.name} failed on a moment of {record.stream!r}: {type(error).__name__}")
            return ()


_FED: Mapping[str, Callable[[Record], bool]] = {
    "tracks": lambda record: any(found.track for found in record.detections),
    "entities": lambda record: bool(record.states or record.detections or record.texts),
    "spatial": lambda record: record.pose is not None,
}
"""What a moment must have for a bank to keep anything of it; a bank that isn't named may keep any."""


def settings_of(config: Config) -> bytes:
    """What decides which banks there are and what they keep: the sections with ``on``."""
    return msgspec.json.encode({name: getattr(config, name).model_dump(mode="json") for name in _sections(config)})


def with_settings(config: Config, settings: bytes | None) -> Config:
    """``config`` with the banks' sections as :func:`settings_of` gave them. A section that this release doesn't
    understand stays as it is."""
    if settings is None or settings == settings_of(config):
        return config
    written = msgspec.json.decode(settings)
    changed = {}
    for name in _sections(config):
        try:
            changed[name] = type(getattr(config, name)).model_validate(written.get(name, {}))
        except ValidationError:
            continue
    return config.model_copy(update=changed)


def _sections(config: Config) -> list[str]:
    return [name for name in Config.model_fields if hasattr(getattr(config, name), "on")]
