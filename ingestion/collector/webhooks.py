"""Did this webhook come from whom it says, just now, and for the first time? HMAC-SHA256, and a window of time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from foretell.errors import DataError

TOLERANCE = 300  # seconds that the sender's clock, or the way, may take
_REMEMBERED = 100_000


class Refused(Exception):
    """A webhook that is not taken: HTTP status, problem, fix."""

    def __init__(self, status: int, problem: str, fix: str):
        self.status, self.problem, self.fix = status, problem, fix
        super().__init__(problem)


@dataclass(frozen=True)
class Scheme:
    """How a sender signs.

    signature, timestamp, id: headers (lower case) that hold them; "" if there is none. signed: what is signed, made of
    {id}, {timestamp} and {body}. prefix: what goes before each signature. pairs: the signature's header is a list
    `t=timestamp,v1=signature`. base64: signatures are, else hexadecimal. whsec: the secret is base64 after "whsec_".
    """

    signature: str
    timestamp: str = ""
    id: str = ""
    signed: str = "{body}"
    prefix: str = ""
    pairs: bool = False
    base64: bool = False
    whsec: bool = False

    def with_headers(self, signature: str | None, timestamp: str | None) -> Scheme:
        return replace(
            self, signature=(signature or self.signature).lower(), timestamp=(timestamp or self.timestamp).lower()
        )

    def check_secret(self, secret: str) -> None:
        if self.whsec:
            try:
                self._bytes(secret)
            except (binascii.Error, ValueError):
                raise DataError("secret", 'expected base64 after "whsec_"', "copy it from the sender anew") from None

    def _bytes(self, secret: str) -> bytes:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True) if self.whsec else secret.encode()

    def sign(self, secret: str, body: bytes, timestamp: str = "", id: str = "") -> str:
        """The signature of a body, as this scheme writes it."""
        before, after = self.signed.split("{body}")
        message = before.format(timestamp=timestamp, id=id).encode() + body + after.encode()
        made = hmac.new(self._bytes(secret), message, hashlib.sha256).digest()
        return base64.b64encode(made).decode() if self.base64 else made.hex()


SCHEMES = {
    "foretell": Scheme("x-signature", "x-timestamp", signed="{timestamp}.{body}", prefix="sha256="),
    "github": Scheme("x-hub-signature-256", id="x-github-delivery", prefix="sha256="),
    "stripe": Scheme("stripe-signature", signed="{timestamp}.{body}", pairs=True),
    "shopify": Scheme("x-shopify-hmac-sha256", id="x-shopify-webhook-id", base64=True),
    "standard": Scheme(
        "webhook-signature", "webhook-timestamp", "webhook-id", signed="{id}.{timestamp}.{body}", prefix="v1,",
        base64=True, whsec=True,
    ),
}  # fmt: skip


class Seen:
    """The deliveries taken lately, so that one sent again unchanged is refused."""

    def __init__(self) -> None:
        self._taken: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, delivery: str) -> bool:
        return delivery in self._taken

    def add(self, delivery: str) -> None:
        self._taken[delivery] = None
        if len(self._taken) > _REMEMBERED:
            self._taken.popitem(last=False)

    def discard(self, delivery: str) -> None:
        self._taken.pop(delivery, None)


def check(scheme: Scheme, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> tuple[str, str]:
    """Refuse a webhook that was not signed with the secret, or not just now.

    Returns (message id, delivery). A delivery is one request, signature and all. The sender's own id of the message,
    where it signs one, stays the same when it tries again; else the delivery's stands for it.
    """
    given = headers.get(scheme.signature, "")
    if not given:
        raise Refused(401, f"expected a signature in the header {scheme.signature}, got none", "sign the body")
    timestamp, id = headers.get(scheme.timestamp, ""), headers.get(scheme.id, "")
    if scheme.pairs:
        pairs = [part.strip().partition("=") for part in given.split(",")]
        timestamp = next((value for name, _, value in pairs if name == "t"), "")
        signatures = [value for name, _, value in pairs if name == "v1"]
    else:
        signatures = [part.removeprefix(scheme.prefix) for part in given.split() if part.startswith(scheme.prefix)]
    expected = scheme.sign(secret, body, timestamp, id)
    # all are compared, in constant time: a sender that changes its secret signs with the old and the new one
    good = [hmac.compare_digest(one.encode(), expected.encode()) for one in signatures]
    if not any(good):
        fix = f"sign {scheme.signed} by HMAC-SHA256 with the secret of this webhook"
        raise Refused(401, f"the signature in {scheme.signature} is wrong", fix)
    if scheme.timestamp or scheme.pairs:
        try:
            late = now - float(timestamp)
        except ValueError:
            raise Refused(401, f"expected a time in seconds since 1970, got {timestamp[:40]!r}", "send it") from None
        if not abs(late) <= TOLERANCE:  # a NaN is no time either
            way = "old" if late > 0 else "ahead of our clock"
            problem = f"was signed at a time that is {abs(late):.0f} s {way}, more than {TOLERANCE} s"
            raise Refused(401, problem, "set the sender's clock; a delivery that is sent again is signed anew")
    # an id that is not signed could be changed by whoever replays
    signed_id = id if "{id}" in scheme.signed else ""
    delivery = hashlib.sha256(f"{timestamp}\x1f{signed_id}\x1f{expected}".encode()).hexdigest()
    return signed_id or delivery[:32], delivery
