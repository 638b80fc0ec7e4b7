"""`python -m fleetward_webhook.admission` is `fleetward-admission`."""

import sys

from fleetward_webhook.admission.main import main

sys.exit(main())
