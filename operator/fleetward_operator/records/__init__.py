"""The audit records of every replica, over HTTP, for who may read them."""
