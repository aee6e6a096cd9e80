#!/usr/bin/env python3
"""Ask a local ai-ticket-daemon for its /health: ``health.py PORT``.

Exits with 0 when it is healthy, degraded or not running, and with 1 when it runs but is not well;
the one line it prints says which.
"""

from __future__ import annotations

import http.client
import json
import sys

TIMEOUT_SECONDS = 5.0


def check(port: int) -> tuple[bool, str]:
    """Return whether all is well on this loopback port, and the sentence that says so."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        body = response.read()
    except ConnectionRefusedError:
        return True, f"health: nothing runs on port {port} yet; start it with ops/quickstart.sh"
    except TimeoutError:
        return False, f"health: no answer on port {port} within {TIMEOUT_SECONDS:g} s; see its log"
    except (OSError, http.client.HTTPException) as error:
        return False, f"health: port {port} did not answer as HTTP ({error}); is it ours? see PORT"
    finally:
        connection.close()

    try:
        report = json.loads(body)
        status = report["status"]
        reasons = report.get("reasons") or []
    except (ValueError, KeyError, TypeError):
        return False, (
            f"health: port {port} answered {response.status}, but not as ai-ticket-daemon does; "
            "another service has this port: set another PORT in .env"
        )
    why = f" ({'; '.join(map(str, reasons))})" if reasons else ""
    if response.status == http.client.OK:
        return True, f"health: {status} on port {port}{why}"
    return False, f"health: {status} on port {port}{why}; its log tells more"


def main() -> int:
    """Check the port named on the command line."""
    well, sentence = check(int(sys.argv[1]))
    (sys.stdout if well else sys.stderr).write(f"{sentence}\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
