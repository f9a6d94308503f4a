"""Images and sounds of requests, made what the engine takes, in a process that can be killed."""
