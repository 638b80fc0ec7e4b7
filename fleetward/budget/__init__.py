"""Budgets: what a fleet may spend in all, reserved before an action and settled after it, exactly."""
