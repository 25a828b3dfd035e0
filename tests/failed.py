"""Prints the tests that failed in the last run, one in a line: what pytest keeps for `--last-failed`."""

import json
from pathlib import Path

KEPT = Path(__file__).parent.parent / ".pytest_cache" / "v" / "cache" / "lastfailed"

if __name__ == "__main__":
    print("\n".join(json.loads(KEPT.read_text()) if KEPT.exists() else []))
