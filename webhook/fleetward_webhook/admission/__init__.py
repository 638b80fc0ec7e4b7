"""The admission webhook: injects into agents' pods, holds those of stopped agents, checks resources."""
