"""Every French and English sentence shown to people, and nothing else."""
