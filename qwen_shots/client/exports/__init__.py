"""Shots as files that other programs read. Captions are a model's words, so each writer escapes what it must."""
