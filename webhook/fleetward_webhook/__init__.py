"""Fleetward's webhooks: the decision sidecar."""
