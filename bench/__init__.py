"""How fast Fleetward is and what it uses: `make bench`. Ratios are measured side by side in one run."""
