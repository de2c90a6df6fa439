"""One probabilistic forward pass: means and variances through a network, once, instead of many samples."""

from netfit.bayes.pfp._calibrate import CalibrationReport, Place, calibrate_pfp
from netfit.bayes.pfp._module import PFP, to_pfp
from netfit.bayes.pfp._registry import register_moment_rule

__all__ = ["PFP", "CalibrationReport", "Place", "calibrate_pfp", "register_moment_rule", "to_pfp"]
