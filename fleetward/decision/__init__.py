"""Decisions: an action is classified, matched against the rules that concern its agent, and answered."""
