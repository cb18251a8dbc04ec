"""Where things are and how to get there: sparse octree, graph of places, memories of places, map versions."""
