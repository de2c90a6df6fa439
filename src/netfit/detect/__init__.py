"""Anomalies in clusters whose channels come and go.

`HybridDetector` compares channels with their peers (`PeerDBSCAN`, exact and native) and the fleet with its past
(`GroupReducer`, then `WindowPCA` or a forecaster), sets its own threshold (`SPOT`) and raises few alerts that say
which channels, since when, observed and expected. `metrics` judges scores without point adjustment, `inputs` reads
tables, streams and a Prometheus server, `fleet` makes labelled data.

"DeepHYDRA: Resource-Efficient Time-Series Anomaly Detection in Dynamically-Configured Systems" (2024).

Names are imported on first use: torch is loaded for forecasters only.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
