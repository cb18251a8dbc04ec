"""Sources: one grammar for files, folders, cameras, addresses and generated scenes."""

from __future__ import annotations

from perception.sources.grammar import known_schemes, open_source

__all__ = ["known_schemes", "open_source"]
