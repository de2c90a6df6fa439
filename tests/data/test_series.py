"""Labelled series: the sets at hand, the authors' text layout, and files of one's own."""

import numpy as np
import pytest

from netfit.data import read_series, series
from netfit.errors import ArtifactError, ConfigError, DataNotFound


def loaded(name):
    try:
        return series(name)
    except DataNotFound as e:
        pytest.skip(str(e))


def test_asd_has_twelve_servers_with_causes():
    found = loaded("asd")
    assert len(found) == 12
    one = found["omi-1"]
    assert one.test.shape == (4320, 19) and one.train.shape == (8640, 19) and len(one.label) == 4320
    assert one.time[1] == 300 and 0.05 < one.label.mean() < 0.2
    assert len(one.causes) == 7 and all(one.label[a:b].mean() > 0.9 for a, b, _ in one.causes)
    assert one.causes[0][2][0] == 3  # channel 4 of the file, counted from 1


def test_one_machine_of_smd():
    (one,) = loaded("smd:machine-1-6").values()
    assert one.test.shape[1] == 38 and one.name == "smd:machine-1-6"


def test_skab_has_times_of_its_own():
    found = loaded("skab")
    assert len(found) == 34 and "anomaly-free/anomaly-free" not in found
    assert all(len(s.test) == len(s.time) == len(s.label) for s in found.values())


def test_the_text_layout_of_smd_is_read(tmp_path):
    folder = tmp_path / "ServerMachineDataset"
    rows = {"train": "0.1,0.2\n0.3,0.4\n", "test": "0.5,0.6\n0.7,0.8\n", "test_label": "0\n1\n"}
    for part, text in {**rows, "interpretation_label": "1-1:2\n"}.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "machine-1-1.txt").write_text(text)
    (one,) = series("smd:machine-1-1", tmp_path).values()
    assert one.test.tolist() == np.float32([[0.5, 0.6], [0.7, 0.8]]).tolist()
    assert one.label.tolist() == [0, 1] and one.causes == ((1, 2, (1,)),)
    (folder / "interpretation_label" / "machine-1-1.txt").write_text("1:2\n")
    with pytest.raises(ArtifactError, match="not first-last:channel"):
        series("smd", tmp_path)


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("time,cpu,anomaly\n10,0.5,0\n20,,1\n")
    one = read_series(path)
    assert one.time.tolist() == [10, 20] and one.channels == ("cpu",) and one.label.tolist() == [0, 1]
    assert np.isnan(one.test[1, 0])
    path.write_text("time,cpu,anomaly\n10,high,0\n20,low,1\n")
    with pytest.raises(ConfigError, match="cpu"):
        read_series(path)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="unknown set of series 'adf'"):
        series("adf")
