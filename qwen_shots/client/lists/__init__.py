"""Shot lists of other programs, a file for each format. `qwen_shots.client.shot_lists` reads any of them."""
