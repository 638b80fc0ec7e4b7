"""Speed on a real Kubernetes control plane: the one that the tests use, which is found here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
