"""Ray outside sweeps: local and shared clusters, workers, snapshots, the doctor."""
