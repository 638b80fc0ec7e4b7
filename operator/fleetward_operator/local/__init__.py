"""`fleetward serve`: the hub beside a watched folder, and a decision webhook for each group of agents."""
