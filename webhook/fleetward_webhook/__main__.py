"""`python -m fleetward_webhook` is `fleetward-webhook`."""

import sys

from fleetward_webhook.sidecar.main import main

sys.exit(main())
