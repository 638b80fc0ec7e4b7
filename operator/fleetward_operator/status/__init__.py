"""What the operator says about every resource: status and conditions, from what it knows."""
