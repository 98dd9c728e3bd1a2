"""Where things lie in the repository."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
TOOLS = [TESTS / "tools", TESTS / "reference"]  # what tests import lies there
DATA = TESTS / "data"
"""Files of checkpoints as they were once written, and what was known of them then."""
ROOT = TESTS.parent
DOCS = ROOT / "docs"
