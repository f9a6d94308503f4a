"""Before an engine serves: what fits the machine, the file, the load itself."""
