"""Runs where several replicas serve webhooks: each keeps those opened through it, and asks the others about theirs."""
