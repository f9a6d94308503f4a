"""The live sockets: what operators see as it happens, made once for all who look."""
