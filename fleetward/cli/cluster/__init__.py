"""The cluster as a source: resources, modes and records, through kubectl and the hub."""
