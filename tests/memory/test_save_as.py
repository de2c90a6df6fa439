"""The technique keeps its contract; codecs by words survive policy files."""

from typing import ClassVar

import pytest

from netfit.errors import ConfigError
from netfit.memory import SaveAs
from netfit.testing import TechniqueContract


class TestQ4(TechniqueContract):
    @pytest.fixture
    def technique(self) -> SaveAs:
        return SaveAs("q4")


class TestPool(TechniqueContract):
    pattern: ClassVar[str] = "kind:conv2d"

    @pytest.fixture
    def technique(self) -> SaveAs:
        return SaveAs("pool2+q8")


class TestLossless(TechniqueContract):
    @pytest.fixture
    def technique(self) -> SaveAs:
        return SaveAs("lossless")


@pytest.mark.parametrize("word", ["q3", "bsr0", "bsr101", "pool1", "q4+mask", "zip", "q4g7", ""])
def test_a_codec_that_does_not_exist_is_refused_with_what_does(word: str) -> None:
    with pytest.raises(ConfigError):
        SaveAs(word)
