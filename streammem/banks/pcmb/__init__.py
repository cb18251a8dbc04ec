"""The parts of the perceptual-cognitive memory bank (MemoryVLA, arXiv 2508.19236 v2, section 3).

options.py    what the paper and its two code bases do differently, and the presets
tokens.py     one stream's entries: append, consolidate the most similar neighbours, keep their spans
reader.py     retrieval with the time code in the keys, gate fusion; and the training-free substitute
weights.py    parameters: fresh ones, and those of the released checkpoints
step.py       one step of one episode: retrieve, fuse, write
episodes.py   ``attend`` for many episodes: begin, end, room

Nothing here imports torch before it is used.
"""
