"""Opens and runs models of strangers in processes of their own, which can do nothing else."""
