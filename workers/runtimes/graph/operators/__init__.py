"""One small function for each operator of ONNX, named as its standard names it."""
