"""Training: feedback becomes a better model, proven before it serves.

So far the statistics by which a trained model is judged: `metrics`, `bootstrap`, `win_rate`,
`sequential`, the `judge`, the rule in `decision`, and `evaluation`, which asks a quantized model as
it will be served. Nothing is trained yet. May import `feedback`, `engine` and `storage`; `bots` and
`training` never import each other, and no chat SDK enters.
"""
