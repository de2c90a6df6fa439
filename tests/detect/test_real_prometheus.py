"""A real Prometheus server that scrapes real exporters, on the loopback address."""

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from netfit.detect import HybridDetector
from netfit.detect.inputs import Prometheus

PROGRAMS = ("prometheus", "prometheus-node-exporter")
QUERY = "node_filefd_allocated"
needs_programs = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)), reason="needs Debian's packages prometheus and prometheus-node-exporter"
)
CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs:
  - job_name: node
    static_configs: [{targets: [%s]}]
"""


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def wait_for(url, seconds=60):
    for _ in range(seconds * 5):
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(url)


@pytest.fixture
def server(tmp_path):
    ports = [free_port() for _ in range(5)]
    started = []

    def start(*command):
        log = (tmp_path / f"{len(started)}.log").open("w")
        started.append((subprocess.Popen(command, stdout=log, stderr=log), log))
        return started[-1][0]

    exporters = [start("prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}") for port in ports[1:]]
    (tmp_path / "p.yml").write_text(CONFIG % ", ".join(f"'127.0.0.1:{port}'" for port in ports[1:]))
    start(
        "prometheus", f"--config.file={tmp_path}/p.yml", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{ports[0]}",
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{ports[0]}/-/ready")
        yield f"http://127.0.0.1:{ports[0]}", exporters
    finally:
        for process, log in started:
            process.kill()
            process.wait()
            log.close()


@needs_programs
def test_a_node_that_dies_is_told_by_a_real_server(server):
    url, exporters = server
    prometheus = Prometheus(url, f"last_over_time({QUERY}[2s])", step_s=1)
    detector = HybridDetector("job", entity="instance", temporal=None, absent="alert")
    alerts, rows, killed, deadline = [], 0, 0, time.monotonic() + 60
    for frame in prometheus.follow(behind_s=1):
        alerts += detector.detect(frame)
        rows += bool(frame.columns) * len(frame)
        if rows >= 8 and not killed:
            exporters[0].kill()
            killed = rows
        if "absent" in {a.kind for a in alerts} or time.monotonic() > deadline:
            break
    (gone,) = [a for a in alerts if a.kind == "absent"]
    assert killed and gone.subject.startswith("127.0.0.1:") and QUERY in gone.channels[0].name
