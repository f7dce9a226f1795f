"""Qwen2-VL's forward pass for this one job: ragged batches, fused weights, captions in CUDA graphs.

`tower` turns pictures into tokens, `decoder` reads the prompt with all questions and writes the captions, `layout` says
which token stands where. The weights are those of the transformers model; tests hold that the answers are too.
"""
