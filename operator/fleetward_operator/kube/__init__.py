"""The API server as the operator uses it: as whom, one request, objects as plain JSON, Events."""
