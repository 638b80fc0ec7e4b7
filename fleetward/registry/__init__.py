"""The registry: all resources as one immutable snapshot, and the slices of it that sidecars decide from."""
