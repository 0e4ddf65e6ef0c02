"""Take rules out of the source: see `search.py`."""

import sys

from tests.simulation.mutations.search import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
