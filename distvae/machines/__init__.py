"""Ray outside sweeps: local and shared clusters, workers, shards in actors, the doctor."""
