"""The eleven basic colour terms (Berlin and Kay 1969): the columns of every part that holds shares of colours."""

from __future__ import annotations

TERMS = tuple(sorted("black white red green yellow blue brown purple pink orange gray".split()))
"""Column ``i`` of the parts ``colours`` and ``track_colours`` is the share of ``TERMS[i]``."""
