"""The decision webhook beside an agent: its own process, deciding alone and in memory."""
