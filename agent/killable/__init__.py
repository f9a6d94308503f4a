"""Worker processes for jobs that may be hostile: one job at a time, killed past its time."""
