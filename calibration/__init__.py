"""INT8 from measurement: the calibration set, ranges, and explicit Q/DQ graphs.

The modules that need the onnx package are imported by their names; this one needs NumPy alone.
"""

from icnet_deploy.calibration.selection import CalibrationSet, choose, stratified

__all__ = ["CalibrationSet", "choose", "stratified"]
