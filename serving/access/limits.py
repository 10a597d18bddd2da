"""How often may somebody ask? Token buckets, as many as are kept at a time and no more."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address


class Buckets:
    """A bucket for each of those who asked last. rate: tokens a second, 0 for no limit; burst: what a full one holds.

    most: buckets that are kept. Who has not asked for longest is forgotten first, and begins again with a full one: so
    whoever asks from very many addresses is slowed less, and takes no more memory.
    """

    def __init__(self, rate: float, burst: float, most: int = 10_000, clock: Callable[[], float] = time.monotonic):
        self.rate, self.burst, self._most, self._clock = rate, max(burst, 1.0), most, clock
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def __len__(self) -> int:
        return len(self._held)

    def take(self, who: str) -> int:
        """Take a token. Returns 0, or in how many seconds there is one again."""
        if not self.rate:
            return 0
        now, tokens = self._clock(), self._tokens(who)
        self._held[who] = (tokens - 1 if tokens >= 1 else tokens, now)
        self._held.move_to_end(who)
        if len(self._held) > self._most:
            self._held.popitem(last=False)
        return 0 if tokens >= 1 else self._wait(tokens)

    def wait(self, who: str) -> int:
        """As `take` says, but nothing is taken."""
        return 0 if not self.rate or (tokens := self._tokens(who)) >= 1 else self._wait(tokens)

    def _tokens(self, who: str) -> float:
        held = self._held.get(who)
        return self.burst if held is None else min(self.burst, held[0] + (self._clock() - held[1]) * self.rate)

    def _wait(self, tokens: float) -> int:
        return max(1, math.ceil((1 - tokens) / self.rate))


def network(address: str) -> str:
    """What is taken for one asker: an IPv4 address; of an IPv6 address the /64, which one machine has to itself.

    >>> network("192.0.2.7"), network("2001:db8::1"), network("::ffff:192.0.2.7"), network("nowhere")
    ('192.0.2.7', '2001:db8:0:0::/64', '192.0.2.7', 'nowhere')
    """
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return ":".join(f"{int(part, 16):x}" for part in found.exploded.split(":")[:4]) + "::/64"
