"""Procedural homes: rooms, furniture and things to carry, made from a seed; geometry and truth without a renderer."""
