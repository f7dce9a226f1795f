"""Judges a checkpoint before it serves: `python -m scripts.check_model [MODEL]`.

It asks the model about a few real film frames, through the loader and the runner that the server uses, and holds the
model's own captions and scores, before any measurement or sound touches them, against stated bars.

scenes      which pictures are shown
evidence    what the model says of them
checks      what that is worth: each check a pure function; another one is added there and in the list at its end
report      the table and the JSON
"""
