"""What a hub and a sidecar say to each other over their one long-lived stream."""
