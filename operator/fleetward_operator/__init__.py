"""Fleetward's operator: resources in, decisions' raw material out to every sidecar, records back."""
