"""ONNX's `Scan`: a cell where the language of cells has words for its body, a loop otherwise."""
