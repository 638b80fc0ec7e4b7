"""`fleetward policy`: lint a folder, run its policy tests, import rules from elsewhere."""
