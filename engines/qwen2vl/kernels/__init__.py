"""What a GPU calculates by kernels in Triton's language; `fused` and `attention` say what, in plain torch too."""
