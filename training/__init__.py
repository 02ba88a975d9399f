"""Training: feedback becomes a better model, proven before it serves.

Empty so far. The room exists because the import contract names it: it may import `feedback`,
`engine` and `storage`, `bots` and `training` never import each other, and no chat SDK enters.
"""
