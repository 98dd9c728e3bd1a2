"""python -m reliability [--kills 200] [--seed 0]"""

from __future__ import annotations

import argparse

from reliability.kills import survive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how often a run is killed by SIGKILL in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    runs = survive(asked.kills, asked.seed)
    print(f"{asked.kills} kills in {runs} runs of descend, one rule after the other: each came through with the bits "
          "of a run that nobody touched.")


if __name__ == "__main__":
    main()
