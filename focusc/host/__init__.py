"""The host's side of a program: ONNX models for the segments that the accelerator does not run, and running them."""

from focusc.host.model import segment_model
from focusc.host.runner import HostSegments

__all__ = ["HostSegments", "segment_model"]
