"""What the leading operator keeps right in the cluster: certificates, trust, webhook configurations, admission."""

from fleetward_operator.keeper.keeper import Keeper
from fleetward_operator.keeper.settings import KeeperSettings

__all__ = ["Keeper", "KeeperSettings"]
