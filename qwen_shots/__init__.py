"""The part without torch: the wire, pictures, sound, scores and their fusion."""
