"""What the engine tells about itself: receipts, reports and ``status``. Plain structs, ready for JSON."""

from __future__ import annotations

import msgspec


class WriteReceipt(msgspec.Struct, frozen=True):
    """``written + duplicates + sum(refused)`` is what was offered. ``durable``: synced, survives ``kill -9``."""

    written: int
    duplicates: int = 0
    refused: dict[str, int] = {}
    durable: bool = True


class ForgetReport(msgspec.Struct, frozen=True):
    """What ``forget`` removed. ``segments`` were rewritten or deleted; ``bytes`` is the disk space won."""

    records: int
    observations: int
    thumbnails: int
    segments: int
    streams: tuple[str, ...]
    bytes: int


class DamageReport(msgspec.Struct, frozen=True):
    """Bytes that failed their checksum, and what became of them."""

    path: str
    offset: int
    what: str
    quarantined: str = ""


class BankStatus(msgspec.Struct, frozen=True):
    """``disk_bytes`` of sealed segments, ``ram_bytes`` of the open part; ``cap_bytes`` 0 means no cap of its own."""

    bank: str
    records: int
    disk_bytes: int
    ram_bytes: int
    cap_bytes: int = 0


class StreamStatus(msgspec.Struct, frozen=True):
    """``observations`` counts what the records stand for, merged ones included; ``levels`` rows by demotion level."""

    stream: str
    observations: int
    records: int
    open_records: int
    segments: int
    t_min_ns: int | None
    t_max_ns: int | None
    bytes: int
    drops: dict[str, int] = {}
    levels: dict[int, int] = {}


class Status(msgspec.Struct, frozen=True):
    """Everything a person or a monitor asks first. Bytes are compared with caps; a cap of 0 means none."""

    directory: str
    mode: str
    format: int
    observations: int
    records: int
    segments: int
    disk_bytes: int
    disk_cap_bytes: int
    ram_bytes: int
    ram_cap_bytes: int
    journal_bytes: int
    journal_unsynced_bytes: int
    catalog_bytes: int
    banks: tuple[BankStatus, ...]
    streams: tuple[StreamStatus, ...]
    spaces: tuple[str, ...]
    drops: dict[str, int]
    corruption: tuple[DamageReport, ...] = ()
    quarantined_segments: int = 0
    notes: tuple[str, ...] = ()
