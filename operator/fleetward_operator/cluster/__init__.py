"""The operator on Kubernetes: custom resources in, authority, status, evictions and gates out."""
