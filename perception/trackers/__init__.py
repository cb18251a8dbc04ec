"""Following objects through pictures. Label propagation on the CPU; see docs/tracking.md."""
