"""Training: feedback becomes a better model, proven before it serves, and taken back if it is not.

`worker` takes runs from the queue: a snapshot of the ratings (`feedback.datasets`), a `plan`, and a
process of the run's own (`execute`): stages by `recipes` (`sft`, `dpo`, `kto`, `reward`, `rloo`) in
the frame of `stage`, the quantized model (`artifact`), and the `gate`, whose rule is `decision`.
`serving` promotes and rolls back, `canary` watches tried versions, `schedule` queues runs by
itself, and `feedback.forgotten_rows` empties the snapshots of people who are forgotten. Enter by
`python -m training worker`, `export`, `push` or `curves`.

May import `feedback`, `engine` and `storage`; `bots` and `training` never import each other, and no
chat SDK enters. Torch is imported inside functions only, so that the worker does without it.

Why every run begins from the base model: what an earlier version learnt is in the ratings still,
and what people took back is not.
"""
