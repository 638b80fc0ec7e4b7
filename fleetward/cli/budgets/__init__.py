"""`fleetward budgets`: how budgets stand, who spent them, and which of them stopped an action."""
