"""Runs: what a requester authorised, what a run's agents have done with it, and plans checked before they start."""
