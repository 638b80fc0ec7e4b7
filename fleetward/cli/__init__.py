"""The command line `fleetward`, also installed as `kubectl-fleetward`."""
