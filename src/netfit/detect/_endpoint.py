"""What the detector thinks, for Prometheus to scrape and Grafana to draw."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self

from netfit.detect._service import Service
from netfit.errors import ConfigError, TargetError

__all__ = ["Endpoint"]

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Endpoint:
    """Serves ``/metrics`` in the text format of Prometheus. Use as a context manager.

    Args:
        service: whose numbers to show.
        address: ``"HOST:PORT"``; listen on the loopback address unless others shall see it. Port 0 takes a free one.

    Attributes:
        url: where it answers.

    Raises:
        ConfigError: the address cannot be read.
        TargetError: the address is in use or not this machine's.
    """

    def __init__(self, service: Service, address: str) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"address {address!r}: give HOST:PORT, such as 127.0.0.1:9105")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == "/metrics"
                body = exposition(service).encode() if known else b"see /metrics\n"
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", _TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer((host, int(port)), Handler)
        except OSError as e:
            raise TargetError(f"cannot listen on {address}: {e.strerror or e}") from e
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}/metrics"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def exposition(service: Service) -> str:
    """All numbers in the text format of Prometheus."""
    lines = [
        "# TYPE netfit_rows_total counter",
        f"netfit_rows_total {service.detector.n_rows_}",
        "# TYPE netfit_last_row_timestamp_seconds gauge",
        f"netfit_last_row_timestamp_seconds {service.detector.last_time_!r}".replace("-inf", "-Inf"),
        "# TYPE netfit_alerts_total counter",
        *(f'netfit_alerts_total{{kind="{kind}"}} {n}' for kind, n in sorted(service.counts.items())),
        "# TYPE netfit_alert_score gauge",
    ]
    for alert in list(service.detector.open_alerts()):
        worst = alert.channels[0].name if alert.channels else ""
        labels = {"id": str(alert.id), "kind": alert.kind, "subject": alert.subject, "channel": worst}
        inner = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
        lines.append(f"netfit_alert_score{{{inner}}} {alert.score!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
