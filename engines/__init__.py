"""How frames and questions become captions and scores.

What the server sees is `base`: an `Engine`. `choice` makes the one that the settings name.

On this machine: `local` keeps a process for each GPU (`replica`, seen from the server; `worker`, inside it; `messages`
between the two) and feeds them from one queue (`scheduler`); `watchdog` and `probe` notice one that is stuck. In the
process a batch passes `stations`; `runner` asks the model what `questions` holds, by a `backbone`: `qwen2vl` for that
family, `stock` (with `packing`) for every other one. `pixels` is what both know of pictures, `budget` how large a batch
may be.

Elsewhere: `remote` shares shots out to endpoints, each with a `line` of shots in hand; an `interview` asks about one
shot in a `conversation`, through `endpoint`, and `chances` reads the answers' probabilities.
"""
