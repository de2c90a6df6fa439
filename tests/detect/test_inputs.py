"""Tables come in from files, pipes and a server, block by block, with an error that names the place."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import numpy as np
import pytest

from netfit.detect import Frame, TimeOrderError
from netfit.detect.inputs import Prometheus, column_name, read_frames, read_whole, write_table
from netfit.errors import ConfigError, DataNotFound, TargetError, TargetUnavailable

TABLE = Frame(np.array([1.0, 2.5, 4.0]), ("rack=r1,node=a", 'say "b"'), np.array([[1, 2], [np.nan, 4.5], [5, -6e-9]]))
LONG = "time,channel,value\n1,a,1.5\n1,b,2\n2,b,\n3,c,4\n"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_is_read_as_it_was_written(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    write_table(tmp_path / f"t.{ending}", TABLE)
    back = read_whole(tmp_path / f"t.{ending}")
    assert back.columns == TABLE.columns
    np.testing.assert_array_equal(back.times, TABLE.times)
    np.testing.assert_array_equal(back.values, TABLE.values)
    assert [len(f) for f in read_frames(tmp_path / f"t.{ending}", block=2)] == [2, 1]


def test_a_long_table_has_the_columns_that_are_there(tmp_path):
    (tmp_path / "l.csv").write_text(LONG)
    whole = read_whole(tmp_path / "l.csv")
    assert whole.columns == ("a", "b", "c") and whole.times.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(whole.values, [[1.5, 2, np.nan], [np.nan] * 3, [np.nan, np.nan, 4]])
    small = list(read_frames(tmp_path / "l.csv", block=1))
    assert [f.columns for f in small] == [("a", "b"), ("b", "c")]


def test_a_long_parquet_file_with_dates(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    times = pa.array(np.array(["2020-01-01T00:00:00", "2020-01-01T00:00:05"], "M8[s]"))
    pq.write_table(pa.table({"time": times, "channel": ["a,x", "b"], "value": [1.0, 2.0]}), tmp_path / "l.parquet")
    whole = read_whole(tmp_path / "l.parquet")
    assert whole.columns == ("a,x", "b") and np.diff(whole.times).tolist() == [5]


def test_dates_are_seconds(tmp_path):
    (tmp_path / "d.csv").write_text("timestamp,a\n2020-01-01T00:00:00,1\n2020-01-01T00:00:10+00:00,2\n")
    assert read_whole(tmp_path / "d.csv").times.tolist() == [1577836800, 1577836810]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", ConfigError, "is empty"),
        ("a,b\n1,2\n", ConfigError, "has no column 'time'"),
        ("time,a,a\n1,2,3\n", ConfigError, "column 'a' is there twice"),
        ("time,a\n1\n", ConfigError, "line 2 has 1 fields"),
        ("time,a\n1,2\n2,x\n", ConfigError, "line 3: 'x' in column 'a' is no number"),
        ("time,a\nnoon,2\n", ConfigError, "line 2: time 'noon'"),
        ("time,a\n2,2\n1,2\n", TimeOrderError, "row 1 is at time 1"),
        ("time,channel,value\n1,a,2\n1,a,3\n", ConfigError, "line 3: 'a' is there twice at time 1"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path, text, error, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(error, match=words):
        read_whole(tmp_path / "t.csv")


def test_a_missing_file_or_one_that_is_no_parquet(tmp_path):
    with pytest.raises(DataNotFound, match="cannot be read"):
        read_whole(tmp_path / "none.csv")
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_text("no")
    with pytest.raises(ConfigError, match="is no Parquet file"):
        read_whole(tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="follow a CSV file"):
        list(read_frames(tmp_path / "t.parquet", follow=True))


def test_a_growing_file_is_followed_line_by_line(tmp_path):
    path = tmp_path / "grow.csv"
    path.write_text("time,a\n1,10\n2,2")
    frames = read_frames(path, follow=True, idle_s=0.2)
    first = next(frames)
    assert first.values.tolist() == [[10]]  # the second line is not complete
    with path.open("a") as file:
        file.write("0\n3,30\n")
    assert [f.values.tolist() for f in frames] == [[[20], [30]]]


def test_standard_input_is_a_table():
    code = "from netfit.detect.inputs import read_whole; print(read_whole('-').values.sum())"
    done = subprocess.run([sys.executable, "-c", code], input=LONG, capture_output=True, text=True)
    assert done.stdout.strip() == "nan" or float(done.stdout) != 0, done.stderr


@pytest.fixture
def server():
    """Answers range queries: series a counts seconds, series b is there in every second step."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            form = {k: v[0] for k, v in parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).items()}
            asked.append(form)
            status, body = 200, {"status": "success", "data": {"resultType": "matrix", "result": result(form)}}
            if form["query"] == "bad(":
                status, body = 400, {"status": "error", "error": "parse error: unclosed left parenthesis"}
            if form["query"] == "scalar":
                body["data"]["resultType"] = "scalar"
            data = json.dumps(body).encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    def result(form):
        clock = np.arange(float(form["start"]), float(form["end"]) + 1e-6, float(form["step"]))
        return [
            {"metric": {"__name__": "up", "job": "a"}, "values": [[t, str(t)] for t in clock]},
            {"metric": {"job": "b"}, "values": [[t, "NaN" if i else "+Inf"] for i, t in enumerate(clock[::2])]},
        ]

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}", asked
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_range_of_a_server_is_a_frame(server):
    url, asked = server
    frame = Prometheus(url, "up", step_s=5).range(100, 120)
    assert frame.columns == ('up{job="a"}', '{job="b"}') and frame.times.tolist() == [100, 105, 110, 115, 120]
    assert frame.values[:, 0].tolist() == [100, 105, 110, 115, 120]
    assert np.isinf(frame.values[0, 1]) and np.isnan(frame.values[1:, 1]).all()
    rows = [len(f) for f in Prometheus(url, "up", step_s=1).frames(0, 1200)]
    assert sum(rows) == 1201 and len(asked) == 1 + len(rows)


def test_what_a_server_refuses_is_said(server):
    url, _ = server
    with pytest.raises(TargetError, match="unclosed left parenthesis"):
        Prometheus(url, "bad(").range(0, 10)
    with pytest.raises(TargetError, match="'scalar', not a value for each series"):
        Prometheus(url, "scalar").range(0, 10)
    with pytest.raises(TargetUnavailable, match="does not answer"):
        Prometheus("http://127.0.0.1:9", "up", timeout_s=2).range(0, 10)
    with pytest.raises(ConfigError, match="is no address"):
        Prometheus("localhost:9090", "up")
    with pytest.raises(ConfigError, match="rows at once"):
        Prometheus(url, "up", step_s=1).range(0, 1e6)


def test_rows_are_followed_until_told_to_stop(server):
    url, _ = server
    stop = threading.Event()
    got = []
    for frame in Prometheus(url, "up", step_s=0.05).follow(stop=stop):
        got.append(frame)
        if sum(map(len, got)) >= 5:
            stop.set()
    times = np.concatenate([f.times for f in got])
    assert np.allclose(np.diff(times), 0.05)


def test_names_are_promql():
    assert column_name({"b": "2", "a": "1"}) == '{a="1",b="2"}'
