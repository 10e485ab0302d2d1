"""Ray outside sweeps: local and shared clusters, workers, keepers of copies, the doctor."""
