import numpy as np
import pytest
import torch

from netfit.errors import DataNotFound


@pytest.fixture(scope="session")
def server_convs():
    from netfit.compile._sizes import ConvSizes
    from netfit.data.deepbench import deepbench

    try:
        return [ConvSizes.from_deepbench(row) for row in deepbench("conv", "inference_server_set")]
    except DataNotFound as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def conv_reference():
    def run(z, x, w, shift=8):
        y = torch.nn.functional.conv2d(
            torch.tensor(x).double(), torch.tensor(w).double(), None, z.stride, z.padding, 1, z.groups
        )
        return np.clip(y.long().numpy() >> shift, 0, 127).astype(np.int8)

    return run
