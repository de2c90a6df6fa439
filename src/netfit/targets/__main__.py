"""``python -m netfit.targets [HOST [PORT]]``: let other machines measure on this one."""

import os
import secrets
import sys

from netfit.errors import ConfigError, NetfitError

from ._remote import TOKEN_VARIABLE
from ._server import serve


def main(host: str = "127.0.0.1", port: str = "8765") -> None:
    """Serve with the token of the environment, or with a fresh one that is printed."""
    if not port.isdigit():
        raise ConfigError(f"port {port!r} is not a number")
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        token = secrets.token_hex(16)
        print(f"{TOKEN_VARIABLE}={token}", flush=True)
    print(f"measuring for http://{host}:{port} until interrupted", flush=True)
    serve(host, int(port), token=token)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except NetfitError as e:
        print(f"netfit: {e}", file=sys.stderr)
        sys.exit(e.exit_status)
