"""FindingDory: embodied memory evaluation (arXiv 2506.15635), re-implemented from facts; see docs/findingdory.md."""
