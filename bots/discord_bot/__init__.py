"""The Discord app: what Discord needs said differently, and nothing else."""
