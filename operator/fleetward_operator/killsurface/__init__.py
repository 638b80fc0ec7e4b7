"""What stopping does to pods: those that run are evicted, new ones are held, and resuming lets them go."""
