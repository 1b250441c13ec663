"""The networks as operations on named weights; needs neither Jittor nor, but for `onnx`, ONNX."""
