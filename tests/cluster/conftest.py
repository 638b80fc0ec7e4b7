"""A real control plane for every test in here; a namespace and a node for each that asks for one."""

from support.controlplane.fixtures import namespace, node, plane

__all__ = ["namespace", "node", "plane"]
