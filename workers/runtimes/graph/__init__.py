"""ONNX graphs in torch: read as data, computed node by node, differentiable."""
