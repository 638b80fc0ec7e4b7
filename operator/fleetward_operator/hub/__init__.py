"""The hub: snapshots, changes and authority go out to every sidecar over one stream each; records come back."""
