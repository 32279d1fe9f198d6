"""Hostile bytes for every parser and for the listener's port; exit 1 where a promise is broken.

On the port (`fuzz_socket.py`) a real daemon meets association requests, command sets, data sets, lengths and orders
that were changed by chance, while a good sender goes on beside it. The parsers (`fuzz_parsers.py`) are fed in this
process.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import fuzz_parsers
import fuzz_socket
from fuzz_parsers import PARSERS, Tally

SOCKET_SHARE = 0.12
PARSER_MEMORY_MB = 300  # what all cases of all parsers may add to this process


def main() -> int:
    """Print a table of what was tried and what is broken; 1 where anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[*PARSERS, "port"], help="one of them")
    parser.add_argument("--case", type=int, help="with --only, one case of a parser again, with its traceback")
    arguments = parser.parse_args()
    if arguments.case is not None:
        PARSERS[arguments.only][0](random.Random(f"{arguments.seed}:{arguments.only}:{arguments.case}"))
        return 0
    rows: list[tuple[str, Tally, float]] = []
    broken: list[str] = []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    if arguments.only in (None, "port"):
        with tempfile.TemporaryDirectory() as folder:
            count = round(arguments.cases * (SOCKET_SHARE if arguments.only is None else 1))
            tallies, seconds, facts, found = fuzz_socket.run(Path(folder), arguments.seed, count)
        rows += [(f"port: {name}", tally, seconds[name]) for name, tally in tallies.items()]
        print(facts)
        broken += found
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    for name, (_, share) in PARSERS.items():
        if arguments.only in (None, name):
            began = time.monotonic()
            count = round(arguments.cases * (share * (1 - SOCKET_SHARE) if arguments.only is None else 1))
            rows.append((name, fuzz_parsers.run(name, arguments.seed, count), time.monotonic() - began))
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) - peak
    print(f"{'':24}{'cases':>9}{'refused':>9}{'died':>6}{'slowest ms':>12}{'seconds':>9}{'broken':>8}")
    for name, tally, seconds_taken in rows:
        print(
            f"{name:24}{tally.cases:9}{tally.refused:9}{tally.died:6}{tally.slowest_s * 1000:12.1f}"
            f"{seconds_taken:9.1f}{len(tally.broken):8}"
        )
        broken += tally.broken
    if added > PARSER_MEMORY_MB:
        broken.append(f"the parsers took {added} MB more than before")
    print(
        f"{sum(tally.cases for _, tally, _ in rows)} cases, seed {arguments.seed}; the parsers took {added} MB at most"
    )
    for line in broken:
        print(line)
    print(f"{len(broken)} promises broken")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
