"""Audit: a record of every decision, outcome and change of mode; spooled, stored append-only, forwarded to sinks."""
