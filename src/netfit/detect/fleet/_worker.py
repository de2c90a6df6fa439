"""One node of the recorded fleet, a program of its own: works a little, sleeps, and fails when it is told to.

A line on standard input names the fault. Uses the standard library only: dozens of these run at once.
"""

import math
import random
import select
import sys
import time

PERIOD_S = 0.2  # dozens of nodes must fit on one busy core and still be regular


def work(amount: int) -> float:
    """Keep the processor busy for a while."""
    return sum(math.sqrt(i) for i in range(amount))


def main(seed: int, amount: int, megabytes: float) -> None:
    """Run until standard input ends."""
    draw = random.Random(seed)
    held = [bytearray(int(megabytes * 2**20))]
    fault = ""
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 0 if fault == "busy" else PERIOD_S * draw.uniform(0.8, 1.2))
        if ready:
            line = sys.stdin.readline()
            if not line:
                return
            fault = line.strip()
        if fault == "hang":
            time.sleep(3600)
        if fault == "leak":
            held.append(bytearray(b"x" * (1 << 17)))
        work(int(amount * draw.uniform(0.8, 1.2)) * (8 if fault == "busy" else 1))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
