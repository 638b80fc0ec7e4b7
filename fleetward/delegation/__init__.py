"""Delegation: scopes, how they narrow, and the signed grants that carry them."""
