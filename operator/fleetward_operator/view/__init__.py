"""The operator's view of the cluster, and the proof that it is not old."""
