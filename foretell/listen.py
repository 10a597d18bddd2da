"""Can a server listen there?"""

from __future__ import annotations

import errno
import socket

from foretell.errors import DataError


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise DataError(
                    f"port {port}", "another program is listening there", "stop it, or choose another: --port"
                ) from None
            fix = "choose an address of this machine (127.0.0.1, or 0.0.0.0 for all) and a port above 1023"
            raise DataError(f"{host}:{port}", f"cannot be listened on ({error.strerror})", fix) from None
